#include "safetensors.h"

#include <cstring>
#include <nlohmann/json.hpp>

namespace convship::runtime {
namespace {

constexpr std::size_t kMaxHeader = 16 << 20;

DType dtype_of(const std::string& code) {
  static const std::map<std::string, DType> kTypes = {
      {"F32", DType::float32}, {"F64", DType::float64}, {"BF16", DType::bfloat16},
      {"F16", DType::float16}, {"I64", DType::int64},   {"I32", DType::int32},
      {"I16", DType::int16},   {"I8", DType::int8},     {"U8", DType::uint8},
      {"BOOL", DType::boolean}};
  return kTypes.at(code);  // out_of_range for an unknown one, reported by the caller
}

Tensor read_tensor(const nlohmann::json& entry, std::span<const std::byte> data) {
  const DType dtype = dtype_of(entry.at("dtype").get<std::string>());
  const auto shape = entry.at("shape").get<std::vector<std::int64_t>>();
  const std::size_t begin = entry.at("data_offsets").at(0);
  const std::size_t end = entry.at("data_offsets").at(1);
  if (begin > end || end > data.size()) throw std::out_of_range("data_offsets");
  std::size_t bytes = size_of(dtype);
  for (const std::int64_t dim : shape) {
    std::size_t product = 0;
    if (dim < 0 || __builtin_mul_overflow(bytes, static_cast<std::size_t>(dim), &product)) {
      throw std::out_of_range("shape");
    }
    bytes = product;
  }
  if (bytes != end - begin) throw std::out_of_range("shape does not fit data_offsets");
  std::shared_ptr<std::byte[]> copy(new std::byte[bytes]);
  std::memcpy(copy.get(), data.data() + begin, bytes);
  return {dtype, shape, std::shared_ptr<const void>(copy, copy.get())};
}

}  // namespace

std::map<std::string, Tensor> read_safetensors(std::span<const std::byte> bytes,
                                               const std::string& name) {
  try {
    std::uint64_t length = 0;
    if (bytes.size() < sizeof length) throw std::out_of_range("too short");
    std::memcpy(&length, bytes.data(), sizeof length);
    if (length > kMaxHeader || length > bytes.size() - sizeof length) {
      throw std::out_of_range("header length");
    }
    const auto* text = reinterpret_cast<const char*>(bytes.data()) + sizeof length;
    const nlohmann::json header = nlohmann::json::parse(text, text + length);
    std::map<std::string, Tensor> tensors;
    for (const auto& [key, entry] : header.items()) {
      if (key != "__metadata__") {
        tensors.emplace(key, read_tensor(entry, bytes.subspan(sizeof length + length)));
      }
    }
    return tensors;
  } catch (const std::exception& error) {
    throw Error(ErrorCode::model, name + ": the goldens cannot be read (" + error.what() +
                                      "); export the file again");
  }
}

}  // namespace convship::runtime
