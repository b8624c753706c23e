// Shipped files without loading them: what they say of themselves, and signing
// them. Nothing in a file is executed, and LibTorch sees nothing of it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "convship/error.h"
#include "convship/export.h"

namespace convship {

struct Extras {
  std::string manifest;            // JSON
  std::vector<std::byte> goldens;  // safetensors: inputs, and the answers to them
};

// Checks the file as Model::load does and returns what it holds beside the
// network; `public_key` as in Options. Throws Error(model), and Error(usage) for
// a public key that is none.
CONVSHIP_API Extras read_extras(const std::filesystem::path& path,
                                const std::string& public_key = {});

// The shipped file `bytes`, signed; a signature that it has is replaced.
// `private_key` is PEM text of an Ed25519 key without a passphrase, as 'openssl
// genpkey -algorithm ed25519' writes it; `name` stands for the path in messages.
// Throws Error(model) for a file that is damaged or not ours, Error(usage) for a
// key that is none.
CONVSHIP_API std::vector<std::byte> sign(std::span<const std::byte> bytes,
                                         const std::string& private_key,
                                         const std::string& name = "model");

}  // namespace convship
