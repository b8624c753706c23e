// The checks of a model file before LibTorch reads it: the input as it is, as a
// plain TorchScript file, and with the digest that fits it, which lets it deeper.
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>

#include "convship/error.h"
#include "runtime/archive.h"
#include "runtime/comment.h"
#include "runtime/sha256.h"

using namespace convship;
using namespace convship::runtime;

namespace {

using Bytes = std::vector<std::byte>;

void open(const Bytes& bytes, const Accepted& accepted) {
  try {
    const Archive archive = open_archive(bytes, "file", accepted);
    if (archive.bytes != bytes || (archive.plain && !accepted.plain)) std::abort();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::model) std::abort();
  }
}

// With a comment after an end of directory that has none, as export writes it.
Bytes with_digest(Bytes bytes) {
  constexpr std::size_t kSize = kDigestPrefix.size() + kDigestDigits;
  bytes[bytes.size() - 2] = static_cast<std::byte>(kSize);
  bytes[bytes.size() - 1] = std::byte{0};
  const std::string comment = std::string(kDigestPrefix) + sha256_hex(bytes);
  const auto text = std::as_bytes(std::span(comment));
  bytes.insert(bytes.end(), text.begin(), text.end());
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto span = std::as_bytes(std::span(data, size));
  const Bytes bytes(span.begin(), span.end());
  open(bytes, {true, {}});
  if (size >= 22) open(with_digest(bytes), {false, {}});
  return 0;
}
