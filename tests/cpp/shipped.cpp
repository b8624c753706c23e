#include "shipped.h"

#include <torch/csrc/jit/api/module.h>

#include <sstream>

#include "runtime/sha256.h"

namespace convship::testing {

std::string save(const torch::jit::Module& module, const std::string& manifest) {
  std::ostringstream out;
  torch::jit::ExtraFilesMap extras;
  if (!manifest.empty()) extras["manifest.json"] = manifest;
  module.save(out, extras);
  return out.str();
}

std::string save(const std::string& source, const std::string& manifest) {
  torch::jit::Module module("m");
  module.define(source);
  return save(module, manifest);
}

std::string with_digest(std::string archive) {
  constexpr std::size_t kComment = 17 + 64;
  archive[archive.size() - 2] = static_cast<char>(kComment);
  archive += "convship1 sha256=" + runtime::sha256_hex(std::as_bytes(std::span(archive)));
  return archive;
}

std::vector<std::byte> shipped(const std::string& source, const std::string& manifest) {
  return bytes_of(with_digest(save(source, manifest)));
}

}  // namespace convship::testing
