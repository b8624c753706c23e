#include "images/png_rows.h"

#include <cstring>

namespace convship::images {
namespace {

constexpr int kGray = 0;
constexpr int kRgb = 2;
constexpr int kPalette = 3;
constexpr int kGrayAlpha = 4;
constexpr int kRgbAlpha = 6;

void gray_to_rgb(const uint8_t* samples, int64_t step, int scale, int64_t width, uint8_t* rgb) {
  for (int64_t x = 0; x < width; ++x, samples += step, rgb += 3) {
    std::memset(rgb, samples[0] * scale, 3);
  }
}

// Pillow converts 16-bit gray to 8 bits by clipping, not by scaling: all that
// is brighter than 255 of 65535 becomes white.
void gray16_to_rgb(const uint8_t* samples, int64_t width, uint8_t* rgb) {
  for (int64_t x = 0; x < width; ++x, samples += 2, rgb += 3) {
    std::memset(rgb, samples[0] != 0 ? 255 : samples[1], 3);
  }
}

void palette_to_rgb(const uint8_t* samples, const uint8_t* palette, int64_t width, uint8_t* rgb) {
  for (int64_t x = 0; x < width; ++x, rgb += 3) std::memcpy(rgb, palette + 3 * samples[x], 3);
}

// Takes the first, most significant byte of each sample.
void colour_to_rgb(
    const uint8_t* samples, int64_t step, int64_t sample_bytes, int64_t width, uint8_t* rgb) {
  for (int64_t x = 0; x < width; ++x, samples += step, rgb += 3) {
    for (int64_t channel = 0; channel < 3; ++channel) {
      rgb[channel] = samples[channel * sample_bytes];
    }
  }
}

}  // namespace

void png_row_to_rgb(const PngFormat& format,
                    const uint8_t* samples,
                    int64_t width,
                    uint8_t* rgb) noexcept {
  const int64_t sample_bytes = format.bit_depth == 16 ? 2 : 1;
  switch (format.colour_type) {
    case kGray:
      if (format.bit_depth == 16) return gray16_to_rgb(samples, width, rgb);
      return gray_to_rgb(samples, 1, 255 / ((1 << format.bit_depth) - 1), width, rgb);
    case kGrayAlpha:
      return gray_to_rgb(samples, 2 * sample_bytes, 1, width, rgb);
    case kPalette:
      return palette_to_rgb(samples, format.palette, width, rgb);
    case kRgb:
      return colour_to_rgb(samples, 3 * sample_bytes, sample_bytes, width, rgb);
    case kRgbAlpha:
      return colour_to_rgb(samples, 4 * sample_bytes, sample_bytes, width, rgb);
  }
}

}  // namespace convship::images
