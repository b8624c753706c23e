#include <algorithm>
#include <array>

#include "convship/model.h"

namespace convship {
namespace {

struct TypeInfo {
  const char* name;
  std::size_t size;
};

// In the order of DType.
constexpr std::array<TypeInfo, 10> kTypes = {{{"float32", 4},
                                              {"float64", 8},
                                              {"bfloat16", 2},
                                              {"float16", 2},
                                              {"int64", 8},
                                              {"int32", 4},
                                              {"int16", 2},
                                              {"int8", 1},
                                              {"uint8", 1},
                                              {"bool", 1}}};

template <typename T>
constexpr DType kDType = DType::uint8;
template <>
constexpr DType kDType<float> = DType::float32;
template <>
constexpr DType kDType<double> = DType::float64;
template <>
constexpr DType kDType<std::int64_t> = DType::int64;
template <>
constexpr DType kDType<std::int32_t> = DType::int32;

}  // namespace

const char* name_of(DType dtype) { return kTypes.at(static_cast<std::size_t>(dtype)).name; }

std::optional<DType> dtype_named(std::string_view name) {
  for (std::size_t i = 0; i < kTypes.size(); ++i) {
    if (kTypes[i].name == name) return static_cast<DType>(i);
  }
  return {};
}

std::size_t size_of(DType dtype) { return kTypes.at(static_cast<std::size_t>(dtype)).size; }

std::int64_t Tensor::numel() const {
  std::int64_t count = 1;
  for (const std::int64_t dim : shape_) count *= dim;
  return count;
}

template <typename T>
std::span<const T> Tensor::values() const {
  if (dtype_ != kDType<T>) {
    throw Error(ErrorCode::usage, std::string("Tensor::values: the tensor holds ") +
                                      name_of(dtype_) + ", asked for " + name_of(kDType<T>));
  }
  return {static_cast<const T*>(data_.get()), static_cast<std::size_t>(numel())};
}

template CONVSHIP_API std::span<const float> Tensor::values() const;
template CONVSHIP_API std::span<const double> Tensor::values() const;
template CONVSHIP_API std::span<const std::int64_t> Tensor::values() const;
template CONVSHIP_API std::span<const std::int32_t> Tensor::values() const;
template CONVSHIP_API std::span<const std::uint8_t> Tensor::values() const;

}  // namespace convship
