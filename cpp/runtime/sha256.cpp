// OpenSSL calls these functions deprecated. Those that it recommends (and SHA256
// in one call) first read the machine's openssl.cnf and load providers: 2 MB and
// 0.7 ms in every process that loads a model, for the same code in the end.
#define OPENSSL_SUPPRESS_DEPRECATED

#include "sha256.h"

#include <array>

#include "hexadecimal.h"

namespace convship::runtime {

Sha256::Sha256() { SHA256_Init(&context_); }

void Sha256::update(std::span<const std::byte> bytes) {
  SHA256_Update(&context_, bytes.data(), bytes.size());
}

std::string Sha256::hexadecimal() const {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256_CTX context = context_;  // the end of the bytes spoils it
  SHA256_Final(digest.data(), &context);
  return runtime::hexadecimal(digest);
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 sha256;
  sha256.update(bytes);
  return sha256.hexadecimal();
}

}  // namespace convship::runtime
