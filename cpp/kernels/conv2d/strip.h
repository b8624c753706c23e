// A copy of some rows of an image, with the zeros of the padding around them:
// loops over it need no edge cases, and its rows lie close together, where the
// planes of a large image may share a few sets of the cache.
#pragma once

#include <vector>

#include "kernels/conv2d/view.h"

namespace convship::kernels::conv2d {

struct Strip {
  int64_t channels;
  int64_t rows;
  int64_t columns;
  View<const void> steps;  // n_step and data are not used
  int64_t size;            // values

  // Channels adjoin where they do in the source: then a copy moves whole rows.
  static Strip like(bool channels_adjoin, int64_t channels, int64_t rows, int64_t columns);
};

// Fills the strip at `to` with channels [c, c + strip.channels) of image n, its
// upper left corner at row y and column x of the image, which may be outside.
template <typename T, typename A>
void copy_strip(const Strip& strip,
                const View<const T>& from,
                Pair image,
                int64_t n,
                int64_t c,
                int64_t y,
                int64_t x,
                A* to);

}  // namespace convship::kernels::conv2d
