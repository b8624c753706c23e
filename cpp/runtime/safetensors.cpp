#include "safetensors.h"

#include <algorithm>
#include <cstring>

#include "json_values.h"
#include "printable.h"

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

struct Entry {
  std::string name;
  std::size_t begin = 0;
  std::size_t end = 0;
  const nlohmann::json* json = nullptr;
};

// By their places. The format allows neither gaps nor overlaps, with which a
// small file could stand for much memory.
std::vector<Entry> entries_of(const nlohmann::json& header, std::size_t size) {
  const auto most = static_cast<std::int64_t>(size);
  std::vector<Entry> entries;
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") continue;
    const nlohmann::json& offsets = json.at("data_offsets");
    if (!offsets.is_array() || offsets.size() != 2) throw std::out_of_range("data_offsets");
    const auto begin = static_cast<std::size_t>(integer_of(offsets[0], 0, most, "data_offsets"));
    const auto end = static_cast<std::size_t>(integer_of(offsets[1], 0, most, "data_offsets"));
    entries.push_back({name, begin, end, &json});
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::size_t expected = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != expected || entry.end < entry.begin) {
      throw std::out_of_range("data_offsets leave gaps or overlap");
    }
    expected = entry.end;
  }
  if (expected != size) throw std::out_of_range("data_offsets do not cover the data");
  return entries;
}

Tensor read_tensor(const Entry& entry, std::span<const std::byte> data) {
  const DType dtype = dtype_of(entry.json->at("dtype").get<std::string>());
  std::vector<std::int64_t> shape;
  std::size_t bytes = size_of(dtype);
  for (const nlohmann::json& size : entry.json->at("shape")) {
    shape.push_back(integer_of(size, 0, INT64_MAX, "shape"));
    if (__builtin_mul_overflow(bytes, static_cast<std::size_t>(shape.back()), &bytes)) {
      throw std::out_of_range("shape");
    }
  }
  if (bytes != entry.end - entry.begin) throw std::out_of_range("shape does not fit data_offsets");
  std::shared_ptr<std::byte[]> copy(new std::byte[bytes]);
  if (bytes > 0) std::memcpy(copy.get(), data.data() + entry.begin, bytes);
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
    const nlohmann::json header = parse_json(text, text + length);
    const auto data = bytes.subspan(sizeof length + length);
    std::map<std::string, Tensor> tensors;
    for (const Entry& entry : entries_of(header, data.size())) {
      tensors.emplace(entry.name, read_tensor(entry, data));
    }
    return tensors;
  } catch (const std::exception& error) {
    throw Error(ErrorCode::model, name + ": the goldens cannot be read (" +
                                      printable(error.what()) + "); export the file again");
  }
}

}  // namespace convship::runtime
