// The one order in which every direct loop sums the taps of a weight: 16 input
// channels at a time, for each of them row by row and column by column. It
// suits all layouts, so that the layout cannot change the bits of a sum. Where sums
// are added per tap, that is the order of each tap's.
#pragma once

#include <algorithm>

#include "kernels/bfloat16.h"
#include "kernels/conv2d/geometry.h"

namespace convship::kernels::conv2d {

constexpr int64_t kTapChunk = 16;  // input channels

// Calls visit(c, i, j) for every input channel of a group, kernel row and
// kernel column.
template <typename Visit>
void for_each_tap(int64_t channels, Pair kernel, const Visit& visit) {
  for (int64_t begin = 0; begin < channels; begin += kTapChunk) {
    const int64_t end = std::min(begin + kTapChunk, channels);
    for (int64_t i = 0; i < kernel.h; ++i) {
      for (int64_t j = 0; j < kernel.w; ++j) {
        for (int64_t c = begin; c < end; ++c) visit(c, i, j);
      }
    }
  }
}

// Weights [o][c][i][j] of output channels [0, exist) as [tap][packed], taps in
// the order above; zeros for channels that do not exist.
template <typename T, typename A>
void pack_taps(const WeightShape& shape, const T* weight, int64_t exist, int64_t packed, A* to) {
  const int64_t size = shape.kernel.h * shape.kernel.w;
  for (int64_t begin = 0; begin < shape.channels; begin += kTapChunk) {
    const int64_t count = std::min(kTapChunk, shape.channels - begin);
    A* const chunk = to + begin * size * packed;
    if (exist < packed) std::fill_n(chunk, count * size * packed, A(0));
    // Reads follow each other; writes stay within a chunk, which the cache holds.
    for (int64_t o = 0; o < exist; ++o) {
      const T* from = weight + (o * shape.channels + begin) * size;
      for (int64_t c = 0; c < count; ++c) {
        A* place = chunk + c * packed + o;
        for (int64_t k = 0; k < size; ++k, ++from, place += count * packed) {
          *place = Accumulator<T>::widen(*from);
        }
      }
    }
  }
}

}  // namespace convship::kernels::conv2d
