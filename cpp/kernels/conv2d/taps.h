// The one order in which every direct loop sums the taps of a weight: 16 input
// channels at a time, for each of them row by row and column by column. It
// suits all layouts, so that the layout cannot change the bits of a sum.
#pragma once

#include <algorithm>

#include "kernels/conv2d/geometry.h"

namespace convship::kernels::conv2d {

// Calls visit(c, i, j) for every input channel of a group, kernel row and
// kernel column.
template <typename Visit>
void for_each_tap(int64_t channels, Pair kernel, const Visit& visit) {
  constexpr int64_t kChunk = 16;
  for (int64_t begin = 0; begin < channels; begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, channels);
    for (int64_t i = 0; i < kernel.h; ++i) {
      for (int64_t j = 0; j < kernel.w; ++j) {
        for (int64_t c = begin; c < end; ++c) visit(c, i, j);
      }
    }
  }
}

}  // namespace convship::kernels::conv2d
