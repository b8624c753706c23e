// How a call is cut into items for threads and caches: image, group, band of
// pooled rows, part of the output channels. No cut changes a bit of an answer.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/conv2d/geometry.h"

namespace convship::kernels::conv2d {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Item {
  int64_t n;
  int64_t group;
  int64_t band;
  int64_t part;
};

struct Cut {
  int64_t bands;      // of nearly equal height
  int64_t band_rows;  // pooled rows of the highest
  int64_t parts;
  int64_t part_blocks;
  // Windows of neighbouring bands share conv rows, and a thread that sums bands one after
  // the other keeps what it has row-pooled of each block.
  bool keeps_rings;

  // Pooled rows of a band.
  Range rows(int64_t band, const Geometry& g) const {
    return {band * g.pooled.h / bands, (band + 1) * g.pooled.h / bands};
  }

  // Conv rows that the band before has summed, and left in the rings; 0 where it has not.
  int64_t conv_rows_before(int64_t band, const Geometry& g) const {
    if (band == 0 || !keeps_rings) return 0;
    const int64_t last = rows(band - 1, g).end - 1;
    return std::min(g.conv.h, last * g.pool_stride.h - g.pool_padding.h + g.pool_size.h);
  }

  // Parts of one band follow each other: they read the same input.
  Item item(int64_t number, const Geometry& g) const {
    const int64_t place = number / parts;
    return {place / bands / g.groups, place / bands % g.groups, place % bands, number % parts};
  }
};

// First conv row under pooled row p, conv rows under some pooled rows, input
// rows under some conv rows.
inline int64_t first_conv_row(int64_t p, const Geometry& g) {
  return std::max<int64_t>(0, p * g.pool_stride.h - g.pool_padding.h);
}
inline int64_t conv_rows_of(int64_t pooled_rows, const Geometry& g) {
  return std::min(g.conv.h, (pooled_rows - 1) * g.pool_stride.h + g.pool_size.h);
}
inline int64_t rows_under(int64_t conv_rows, const Geometry& g) {
  return (conv_rows - 1) * g.stride.h + (g.kernel.h - 1) * g.dilation.h + 1;
}

// Input columns under all conv columns, padding included.
inline int64_t columns_under(const Geometry& g) {
  return (g.conv.w - 1) * g.stride.w + (g.kernel.w - 1) * g.dilation.w + 1;
}

// Bytes of input that a band may have. A quarter of the smallest second-level cache
// around (512 KB) leaves room for weights and results.
constexpr int64_t kBandBytes = 128 << 10;

// Bytes of this machine's second-level cache, of one core; a guess where it is
// not known.
int64_t second_level_cache();

// blocks: of output channels in a group, of block_size each. strip_row_bytes:
// of one row of input that bands keep in the cache, 0 where they keep none.
Cut cut(const Geometry& g, int64_t blocks, int64_t block_size, int64_t strip_row_bytes, int width);

}  // namespace convship::kernels::conv2d
