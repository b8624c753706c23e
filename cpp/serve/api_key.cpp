#include "serve/api_key.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <string>

#include "convship/error.h"

namespace convship::serve {

ApiKeys::ApiKeys(const std::filesystem::path& file) {
  std::ifstream in(file);
  if (!in) throw Error(ErrorCode::environment, file.string() + ": the API keys cannot be read");
  std::string line;
  while (std::getline(in, line)) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) digests_.push_back(digest_of(line));
  }
  if (digests_.empty()) {
    throw Error(ErrorCode::usage, file.string() + ": there must be a key a line, got none");
  }
}

bool ApiKeys::allow(std::string_view authorization) const {
  if (!required()) return true;
  constexpr std::string_view kScheme = "bearer ";
  const bool has_scheme =
      authorization.size() > kScheme.size() &&
      std::equal(kScheme.begin(), kScheme.end(), authorization.begin(),
                 [](char a, char b) { return a == std::tolower(static_cast<unsigned char>(b)); });
  if (!has_scheme) return false;
  // Digests have one length, so time tells nothing of the keys' lengths either.
  const Digest given = digest_of(authorization.substr(kScheme.size()));
  int found = 0;
  for (const Digest& each : digests_) {
    found |= static_cast<int>(CRYPTO_memcmp(each.data(), given.data(), given.size()) == 0);
  }
  return found != 0;
}

ApiKeys::Digest ApiKeys::digest_of(std::string_view key) {
  Digest digest{};
  EVP_Digest(key.data(), key.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  return digest;
}

}  // namespace convship::serve
