#pragma once
// JPEG and PNG bytes -> RGB rows, under limits.
//
// Pixels are those of Pillow's Image.open(file).convert("RGB"):
//   JPEG  baseline and progressive; gray, YCbCr, RGB, CMYK, YCCK (four
//         components are inverted, as Adobe writes them, and then r = (255-c)(255-k)/255)
//   PNG   every colour type and depth, interlaced or not; alpha and tRNS are
//         dropped, not blended; gAMA, iCCP and other colour chunks are ignored;
//         16-bit colour keeps the high byte; 16-bit gray without alpha is
//         clipped, min(v, 255), which is what Pillow does with it
//   Of an animated PNG and of a JPEG with several pictures, the first one.
// EXIF orientation is not applied (Image.open does not apply it either).
//
// Stricter than Pillow, on purpose: whatever libjpeg warns about in the data,
// a missing end of image and every PNG checksum are errors. Refused although
// Pillow reads them: arithmetic-coded and lossless JPEG, progressive JPEG
// that leaves coefficients unfinished, animated PNG whose first frame is
// smaller than the image. Bytes after the end of the image, and bytes between
// the segments of a JPEG, are ignored.
//
// Every function here is re-entrant and thread-safe, keeps no global state and
// prints nothing.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace convship::images {

// Checked before memory is allocated for what they limit.
struct Limits {
  int64_t max_pixels = int64_t{64} << 20;         // H * W
  int max_side = 16384;                           // H and W, each
  int max_scans = 100;                            // of a progressive JPEG
  int64_t max_memory_bytes = int64_t{256} << 20;  // result + decoder, without the input
  int64_t max_file_bytes = int64_t{256} << 20;    // decode_file only
};

struct Image {
  int height = 0;
  int width = 0;
  std::vector<uint8_t> rgb;  // [H, W, 3], rows contiguous
};

enum class ErrorKind {
  unsupported,  // a sound file, perhaps, but not of a kind that is read here
  damaged,      // truncated or corrupt
  too_large,    // beyond Limits
  io,           // the file cannot be read
};

class ImageError : public std::runtime_error {
 public:
  ImageError(ErrorKind kind, const std::string& message)
      : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

// Decodes one image. What it is follows from its first bytes alone.
// `subject` begins the message of every error: "cat.jpg: ...".
// Throws ImageError (never of kind io), and std::bad_alloc.
Image decode(std::span<const std::byte> bytes,
             const Limits& limits = {},
             std::string_view subject = "image");

// Reads a regular file and decodes it; errors begin with the path.
// Throws ImageError of every kind, and std::bad_alloc.
Image decode_file(const std::filesystem::path& path, const Limits& limits = {});

// What the first bytes look like, for messages: "JPEG", "PNG", "GIF", "WebP",
// "PDF", "HTML", ...; empty when they look like nothing known.
std::string_view encoded_kind(std::span<const std::byte> bytes) noexcept;

}  // namespace convship::images
