// What the loops that copy a band of the input with its padding are told of it.
#pragma once

#include "kernels/conv2d/tasks.h"
#include "kernels/conv2d/view.h"

namespace convship::kernels::conv2d {

// Channels [c, c + channels) of image n: `rows` rows from row y of the padded image on, from its
// first column on `columns`.
template <typename T>
Interleave<T> band_of(const View<const T>& input,
                      const Geometry& g,
                      int64_t n,
                      int64_t c,
                      int64_t channels,
                      int64_t y,
                      Pair size) {
  const int64_t first = c % input.block;
  return {input.at(n, c - first, 0, 0),
          input.c_step,
          input.h_step,
          input.w_step,
          input.block,
          first,
          g.image,
          channels,
          y - g.padding.h,
          -g.padding.w,
          size.h,
          size.w};
}

}  // namespace convship::kernels::conv2d
