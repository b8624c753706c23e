// Reads the safetensors format (https://github.com/huggingface/safetensors):
// 8 bytes little-endian header length, a JSON header, then the tensors' bytes.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "convship/model.h"

namespace convship::runtime {

// Tensors by name; their memory is copied. Throws Error(model) where header,
// sizes and offsets do not agree.
std::map<std::string, Tensor> read_safetensors(std::span<const std::byte> bytes,
                                               const std::string& name);

}  // namespace convship::runtime
