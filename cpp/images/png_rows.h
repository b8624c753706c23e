#pragma once
// Internal: one row of PNG samples -> one row of RGB.

#include <cstdint>

namespace convship::images {

// IHDR's colour type (the PNG standard's numbers 0, 2, 3, 4, 6) and bit depth.
struct PngFormat {
  int colour_type = 0;
  int bit_depth = 8;
  const uint8_t* palette = nullptr;  // [256, 3], zero where the file has no entry
};

// `samples`: one byte per sample for depths up to 8 (1, 2 and 4 bits unpacked,
// not scaled), two bytes big-endian for 16. `rgb`: [W, 3].
void png_row_to_rgb(const PngFormat& format,
                    const uint8_t* samples,
                    int64_t width,
                    uint8_t* rgb) noexcept;

}  // namespace convship::images
