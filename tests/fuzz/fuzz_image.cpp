// JPEG and PNG: an image within the limits, or an ImageError.
#include <cstdlib>

#include "images/decode.h"

using namespace convship::images;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr Limits kLimits{
      .max_pixels = 1 << 16, .max_side = 4096, .max_scans = 20, .max_memory_bytes = 8 << 20};
  try {
    const Image image = decode(std::as_bytes(std::span(data, size)), kLimits);
    const auto pixels = std::int64_t{image.height} * image.width;
    if (pixels < 1 || pixels > kLimits.max_pixels ||
        static_cast<std::int64_t>(image.rgb.size()) != pixels * 3) {
      std::abort();
    }
  } catch (const ImageError& error) {
    if (error.kind() == ErrorKind::io) std::abort();
  }
  return 0;
}
