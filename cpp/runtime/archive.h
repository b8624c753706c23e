// What stands between a file and LibTorch: kind, structure, digest and sizes
// are checked here, before LibTorch parses one byte.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace convship::runtime {

enum class ArchiveKind {
  torchscript,  // .pt
  aotinductor,  // .pt2: native code
};

struct Archive {
  ArchiveKind kind = ArchiveKind::torchscript;
  std::vector<std::byte> bytes;    // the whole file, as checked; LibTorch reads this copy
  std::string sha256;              // of the whole file
  bool plain = false;              // a TorchScript file that convship did not write
  std::string manifest;            // extra/manifest.json; not of a plain file
  std::vector<std::byte> goldens;  // safetensors; may be empty
  // Of a plain TorchScript file: what its code calls and torch does not bring.
  std::vector<std::string> custom_ops;
};

// The whole of a regular file. Throws Error(model).
std::vector<std::byte> read_file(const std::filesystem::path& path);

// Of sound files, which ones.
struct Accepted {
  bool plain = false;      // TorchScript files that convship did not write, too
  std::string public_key;  // not empty, PEM: only files that one of its keys signed
};

// Checks `bytes` and takes the extras out. `name` opens every message.
// Throws Error(model), naming what the file is where it is of another kind, and
// Error(usage) for a public key that is none.
Archive open_archive(std::vector<std::byte> bytes,
                     const std::string& name,
                     const Accepted& accepted);

// The same file, signed with an Ed25519 key in PEM instead of any signature that
// it has. Throws Error(usage) for a key that is none.
std::vector<std::byte> signed_archive(const Archive& archive, const std::string& private_key);

}  // namespace convship::runtime
