// What stands between a file and LibTorch: kind, structure, digest and sizes
// are checked here, before LibTorch parses one byte.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace convship::runtime {

struct Archive {
  std::vector<std::byte> bytes;    // the whole file, as checked; LibTorch reads this copy
  std::string manifest;            // extra/manifest.json; empty for a plain TorchScript file
  std::vector<std::byte> goldens;  // extra/goldens.safetensors; may be empty
  // Of a plain TorchScript file: what its code calls and torch does not bring.
  std::vector<std::string> custom_ops;
};

// The whole of a regular file. Throws Error(model).
std::vector<std::byte> read_file(const std::filesystem::path& path);

// Checks `bytes` and takes the extras out. `name` opens every message.
// Throws Error(model), naming what the file is where it is of another kind.
Archive open_archive(std::vector<std::byte> bytes, const std::string& name, bool allow_plain);

}  // namespace convship::runtime
