#include "serve/datatype.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "serve/failure.h"

namespace convship::serve {
namespace {

// In the order of DType.
constexpr std::array<const char*, 10> kNames = {"FP32",  "FP64",  "BF16", "FP16",  "INT64",
                                                "INT32", "INT16", "INT8", "UINT8", "BOOL"};

template <typename T>
std::vector<std::byte> memory_of(std::size_t count) {
  return std::vector<std::byte>(count * sizeof(T));
}

template <typename T>
void put(std::vector<std::byte>& memory, std::size_t index, T value) {
  std::memcpy(memory.data() + index * sizeof(T), &value, sizeof(T));
}

template <typename T>
std::vector<std::byte> integers(const std::vector<std::int64_t>& values,
                                DType dtype,
                                const std::string& subject) {
  auto memory = memory_of<T>(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] < std::int64_t{std::numeric_limits<T>::min()} ||
        values[i] > std::int64_t{std::numeric_limits<T>::max()}) {
      throw Failure(400, subject + ": the data must fit " + datatype_of(dtype) + ", got " +
                             std::to_string(values[i]));
    }
    put(memory, i, static_cast<T>(values[i]));
  }
  return memory;
}

template <typename T, typename From>
std::vector<std::byte> reals(const std::vector<From>& values,
                             DType dtype,
                             const std::string& subject) {
  auto memory = memory_of<T>(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const T value = static_cast<T>(values[i]);
    if (!std::isfinite(value)) {
      throw Failure(400, subject + ": the data must fit " + datatype_of(dtype) + ", got " +
                             std::to_string(values[i]));
    }
    put(memory, i, value);
  }
  return memory;
}

template <typename T>
void append(std::string& out, T value) {
  char text[32];
  out.append(text, std::to_chars(text, text + sizeof text, value).ptr);
}

template <typename T, typename Write>
void write_all(std::string& out, const Tensor& tensor, const Write& write) {
  const T* values = static_cast<const T*>(tensor.data());
  out += '[';
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    if (i != 0) out += ',';
    write(values[i]);
  }
  out += ']';
}

}  // namespace

const char* datatype_of(DType dtype) { return kNames.at(static_cast<std::size_t>(dtype)); }

std::optional<DType> dtype_of(std::string_view datatype) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == datatype) return static_cast<DType>(i);
  }
  return {};
}

void Numbers::add(std::int64_t value) {
  has_numbers_ = true;
  if (is_real_) {
    reals_.push_back(static_cast<double>(value));
  } else {
    integers_.push_back(value);
  }
}

void Numbers::add(double value) {
  has_numbers_ = true;
  if (!is_real_) {
    is_real_ = true;
    reals_.assign(integers_.begin(), integers_.end());
    integers_ = {};
  }
  reals_.push_back(value);
}

void Numbers::add(bool value) {
  const bool had_numbers = has_numbers_;
  add(std::int64_t{value});
  has_booleans_ = true;
  has_numbers_ = had_numbers;
}

std::vector<std::byte> Numbers::as(DType dtype, const std::string& subject) const {
  const bool floating = dtype == DType::float32 || dtype == DType::float64;
  if (dtype == DType::float16 || dtype == DType::bfloat16) {
    throw Failure(400, subject + ": JSON has no " + datatype_of(dtype) +
                           "; send it as binary data (parameters.binary_data_size)");
  }
  if (has_booleans_ != (dtype == DType::boolean) && size() > 0) {
    throw Failure(400, subject + ": the data must be " +
                           (dtype == DType::boolean ? "true or false" : "numbers") + " for " +
                           datatype_of(dtype) + ", got " +
                           (has_booleans_ ? "booleans" : "numbers"));
  }
  if (has_booleans_ && has_numbers_) {
    throw Failure(400, subject + ": the data must be true or false for BOOL, got numbers too");
  }
  if (is_real_ && !floating) {
    throw Failure(400, subject + ": the data must be integers for " + datatype_of(dtype) +
                           ", got a number with a fraction or beyond 64 bits");
  }
  switch (dtype) {
    case DType::float32:
      return is_real_ ? reals<float>(reals_, dtype, subject)
                      : reals<float>(integers_, dtype, subject);
    case DType::float64:
      return is_real_ ? reals<double>(reals_, dtype, subject)
                      : reals<double>(integers_, dtype, subject);
    case DType::int64:
      return integers<std::int64_t>(integers_, dtype, subject);
    case DType::int32:
      return integers<std::int32_t>(integers_, dtype, subject);
    case DType::int16:
      return integers<std::int16_t>(integers_, dtype, subject);
    case DType::int8:
      return integers<std::int8_t>(integers_, dtype, subject);
    default:
      return integers<std::uint8_t>(integers_, dtype, subject);
  }
}

void write_json(std::string& out, const Tensor& tensor, const std::string& subject) {
  // As a double: every reader then rounds to the same float.
  const auto real = [&](double value) {
    if (!std::isfinite(value)) {
      throw Failure(422, subject + " holds " + (std::isnan(value) ? "NaN" : "infinity") +
                             ", which JSON cannot say; ask for binary data "
                             "(parameters.binary_data)");
    }
    append(out, value);
  };
  const auto integer = [&](auto value) { append(out, value); };
  switch (tensor.dtype()) {
    case DType::float32:
      return write_all<float>(out, tensor, real);
    case DType::float64:
      return write_all<double>(out, tensor, real);
    case DType::int64:
      return write_all<std::int64_t>(out, tensor, integer);
    case DType::int32:
      return write_all<std::int32_t>(out, tensor, integer);
    case DType::int16:
      return write_all<std::int16_t>(out, tensor, integer);
    case DType::int8:
      return write_all<std::int8_t>(out, tensor, [&](auto v) { append(out, int{v}); });
    case DType::uint8:
      return write_all<std::uint8_t>(out, tensor, [&](auto v) { append(out, int{v}); });
    case DType::boolean:
      return write_all<std::uint8_t>(out, tensor,
                                     [&](auto v) { out += v != 0 ? "true" : "false"; });
    case DType::float16:
    case DType::bfloat16:
      throw Failure(422, subject + ": JSON has no " + datatype_of(tensor.dtype()) +
                             "; ask for binary data (parameters.binary_data)");
  }
}

}  // namespace convship::serve
