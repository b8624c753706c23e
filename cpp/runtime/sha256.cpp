// OpenSSL calls these functions deprecated. Those that it recommends (and SHA256
// in one call) first read the machine's openssl.cnf and load providers: 2 MB and
// 0.7 ms in every process that loads a model, for the same code in the end.
#define OPENSSL_SUPPRESS_DEPRECATED

#include "sha256.h"

#include <openssl/sha.h>

#include <array>

#include "hexadecimal.h"

namespace convship::runtime {

std::string sha256_hex(std::span<const std::byte> bytes) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256_CTX context;
  SHA256_Init(&context);
  SHA256_Update(&context, bytes.data(), bytes.size());
  SHA256_Final(digest.data(), &context);
  return hexadecimal(digest);
}

}  // namespace convship::runtime
