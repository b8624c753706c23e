// Who may use the server.
#pragma once

#include <array>
#include <filesystem>
#include <string_view>
#include <vector>

namespace convship::serve {

// The keys of a file, one a line. Empty: everybody may.
class ApiKeys {
 public:
  ApiKeys() = default;
  // Throws Error when the file cannot be read or holds no key.
  explicit ApiKeys(const std::filesystem::path& file);

  bool required() const { return !digests_.empty(); }
  // `authorization` is the header's value: "Bearer KEY". Takes the same time
  // for every wrong key.
  bool allow(std::string_view authorization) const;

 private:
  using Digest = std::array<unsigned char, 32>;  // SHA-256
  static Digest digest_of(std::string_view key);

  std::vector<Digest> digests_;
};

}  // namespace convship::serve
