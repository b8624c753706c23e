#include <algorithm>
#include <array>

#include "images/decode.h"

namespace convship::images {
namespace {

struct Signature {
  size_t offset;
  std::string_view magic;
  std::string_view kind;
};

using namespace std::string_view_literals;

// First match wins, so longer and surer signatures come first.
constexpr std::array kSignatures = {
    Signature{0, "\xFF\xD8\xFF"sv, "JPEG"},
    Signature{0, "\x89PNG\r\n\x1A\n"sv, "PNG"},
    Signature{0, "\x89PNG"sv, "a PNG file that was transferred as text"},
    Signature{0, "GIF87a"sv, "GIF"},
    Signature{0, "GIF89a"sv, "GIF"},
    Signature{8, "WEBP"sv, "WebP"},
    Signature{0, "II*\0"sv, "TIFF"},
    Signature{0, "MM\0*"sv, "TIFF"},
    Signature{4, "ftypavif"sv, "AVIF"},
    Signature{4, "ftyphei"sv, "HEIC"},
    Signature{4, "ftyphev"sv, "HEIC"},
    Signature{4, "ftypmif1"sv, "HEIC"},
    Signature{4, "ftyp"sv, "a video (MP4)"},
    Signature{0, "\0\0\0\x0CjP  "sv, "JPEG 2000"},
    Signature{0, "\xFF\x4F\xFF\x51"sv, "JPEG 2000"},
    Signature{0, "\0\0\0\x0CJXL "sv, "JPEG XL"},
    Signature{0, "\xFF\x0A"sv, "JPEG XL"},
    Signature{0, "qoif"sv, "QOI"},
    Signature{0, "8BPS"sv, "PSD"},
    Signature{0, "%PDF"sv, "PDF"},
    Signature{0, "%!PS"sv, "PostScript"},
    Signature{0, "\0\0\1\0"sv, "ICO"},
    Signature{0, "PK\3\4"sv, "a ZIP archive"},
    Signature{0, "\x1F\x8B"sv, "gzip"},
    Signature{0, "version https://git-lfs"sv, "a Git LFS pointer, not the file itself"},
    Signature{0, "BM"sv, "BMP"},
};

bool begins_with_ignoring_case(std::string_view text, std::string_view lower) {
  if (text.size() < lower.size()) return false;
  return std::equal(lower.begin(), lower.end(), text.begin(), [](char expected, char c) {
    return expected == (c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
  });
}

// A server's error page saved under an image's name is the usual "broken JPEG".
std::string_view markup_kind(std::string_view text) {
  text.remove_prefix(std::min(text.size(), text.starts_with("\xEF\xBB\xBF") ? size_t{3} : 0));
  text.remove_prefix(std::min(text.size(), text.find_first_not_of(" \t\r\n")));
  if (begins_with_ignoring_case(text, "<!doctype html") ||
      begins_with_ignoring_case(text, "<html")) {
    return "HTML";
  }
  if (text.starts_with("<svg")) return "SVG";
  if (text.starts_with("<?xml")) return text.find("<svg") < text.size() ? "SVG" : "XML";
  return {};
}

}  // namespace

std::string_view encoded_kind(std::span<const std::byte> bytes) noexcept {
  constexpr size_t kLooked = 1024;
  const std::string_view head(reinterpret_cast<const char*>(bytes.data()),
                              std::min(bytes.size(), kLooked));
  for (const Signature& s : kSignatures) {
    if (head.size() >= s.offset && head.substr(s.offset).starts_with(s.magic)) return s.kind;
  }
  return markup_kind(head);
}

}  // namespace convship::images
