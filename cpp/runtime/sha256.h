#pragma once

#include <openssl/sha.h>

#include <cstddef>
#include <span>
#include <string>

namespace convship::runtime {

// Of bytes that come in pieces.
class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> bytes);
  // Of all bytes so far: 64 lower-case hexadecimal digits.
  std::string hexadecimal() const;

 private:
  SHA256_CTX context_;
};

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace convship::runtime
