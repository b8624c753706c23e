// The ZIP comment in which a shipped file carries its digest and, if it is
// signed, its signature: "convship1 sha256=..." or "convship1 sha256=...
// ed25519=..." on one line, with lower-case hexadecimal digits.
#pragma once

#include <string>
#include <string_view>

namespace convship::runtime {

inline constexpr std::string_view kDigestPrefix = "convship1 sha256=";
inline constexpr std::string_view kSignaturePrefix = " ed25519=";
inline constexpr std::size_t kDigestDigits = 64;
inline constexpr std::size_t kSignatureDigits = 128;
inline constexpr std::size_t kSignedCommentSize =
    kDigestPrefix.size() + kDigestDigits + kSignaturePrefix.size() + kSignatureDigits;

struct Comment {
  std::string_view digest;     // of all bytes before the comment; empty without one
  std::string_view signature;  // empty for a file that is not signed
};

// Empty members for any other text.
inline Comment parse_comment(std::string_view text) {
  constexpr std::size_t kUnsignedSize = kDigestPrefix.size() + kDigestDigits;
  if (!text.starts_with(kDigestPrefix)) return {};
  const std::string_view digest = text.substr(kDigestPrefix.size(), kDigestDigits);
  if (text.size() == kUnsignedSize) return {digest, {}};
  if (text.size() != kSignedCommentSize ||
      !text.substr(kUnsignedSize).starts_with(kSignaturePrefix)) {
    return {};
  }
  return {digest, text.substr(kUnsignedSize + kSignaturePrefix.size())};
}

inline std::string signed_comment(const std::string& digest, const std::string& signature) {
  return std::string(kDigestPrefix) + digest + std::string(kSignaturePrefix) + signature;
}

}  // namespace convship::runtime
