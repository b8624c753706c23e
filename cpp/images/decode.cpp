#include "images/decode.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <system_error>

#include "images/decoders.h"

namespace convship::images {
namespace {

[[noreturn]] void fail_unknown(Bytes bytes, std::string_view kind, std::string_view subject) {
  if (bytes.empty()) fail(ErrorKind::damaged, subject, "the file is empty");
  std::string looks;
  if (!kind.empty()) {
    looks = "looks like " + std::string(kind);
  } else {
    looks = "begins with bytes";
    for (const std::byte b : bytes.first(std::min<size_t>(bytes.size(), 4))) {
      char hex[4];
      std::snprintf(hex, sizeof(hex), " %02x", static_cast<unsigned>(b));
      looks += hex;
    }
  }
  fail(ErrorKind::unsupported, subject,
       "not a JPEG or PNG image (" + looks + "); convert it first");
}

[[noreturn]] void fail_io(std::string_view subject, const std::string& cause) {
  fail(ErrorKind::io, subject, "cannot read the file (" + cause + ")");
}

std::string error_text(int error_number) { return std::generic_category().message(error_number); }

void check_file_size(uintmax_t size, const Limits& limits, std::string_view subject) {
  if (size > static_cast<uintmax_t>(limits.max_file_bytes)) {
    fail(ErrorKind::too_large, subject,
         "an image file must have at most " + std::to_string(limits.max_file_bytes) +
             " bytes, got " + std::to_string(size));
  }
}

std::vector<std::byte> read_file(const std::filesystem::path& path,
                                 const Limits& limits,
                                 std::string_view subject) {
  // Looked at before it is opened: opening a pipe would wait for its writer.
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (error) fail_io(subject, error.message());
  if (std::filesystem::is_directory(status)) fail_io(subject, "it is a folder");
  if (!std::filesystem::is_regular_file(status)) fail_io(subject, "it is not a regular file");
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) fail_io(subject, error.message());
  check_file_size(size, limits, subject);

  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_io(subject, error_text(errno));
  std::vector<std::byte> bytes(static_cast<size_t>(size));
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (file.bad()) fail_io(subject, error_text(errno));
  bytes.resize(static_cast<size_t>(file.gcount()));  // it may have shrunk meanwhile
  return bytes;
}

}  // namespace

Image decode(std::span<const std::byte> bytes, const Limits& limits, std::string_view subject) {
  const std::string_view kind = encoded_kind(bytes);
  if (kind == "JPEG") return decode_jpeg(bytes, limits, subject);
  if (kind == "PNG") return decode_png(bytes, limits, subject);
  fail_unknown(bytes, kind, subject);
}

Image decode_file(const std::filesystem::path& path, const Limits& limits) {
  const std::string subject = path.string();
  const std::vector<std::byte> bytes = read_file(path, limits, subject);
  return decode(bytes, limits, subject);
}

}  // namespace convship::images
