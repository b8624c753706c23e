// The two members that are ours: the manifest and the goldens. The first byte
// says which.
#include <cstdlib>
#include <span>
#include <string>

#include "convship/error.h"
#include "runtime/manifest.h"
#include "runtime/safetensors.h"

using namespace convship;
using namespace convship::runtime;

namespace {

void check(const Manifest& manifest) {
  for (const auto* tensors : {&manifest.inputs, &manifest.outputs}) {
    for (const TensorInfo& tensor : *tensors) {
      for (const std::int64_t size : *tensor.shape) {
        if (size < TensorInfo::kAnySize) std::abort();
      }
    }
  }
  if (manifest.classifier &&
      static_cast<std::int64_t>(manifest.labels.size()) != manifest.outputs.at(0).shape->back()) {
    std::abort();
  }
  if (manifest.goldens < 0) std::abort();
}

void read_goldens(std::span<const std::byte> bytes) {
  std::size_t total = 0;
  for (const auto& [name, tensor] : read_safetensors(bytes, "file")) {
    total += static_cast<std::size_t>(tensor.numel()) * size_of(tensor.dtype());
  }
  if (total > bytes.size()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  try {
    const auto rest = std::as_bytes(std::span(data, size)).subspan(1);
    if (data[0] == 'G') {
      read_goldens(rest);
    } else {
      check(parse_manifest({reinterpret_cast<const char*>(rest.data()), rest.size()}, "file"));
    }
  } catch (const Error& error) {
    if (error.code() != ErrorCode::model) std::abort();
  }
  return 0;
}
