// A dilated convolution of stride 1 without pooling is a convolution without dilation of
// every d-th row and column, for each of d * d places to begin at.
#pragma once

#include "kernels/conv2d/geometry.h"

namespace convship::kernels::conv2d {

struct DilationPhase {
  Geometry geometry;
  Pair input;  // the first row and column that it looks at
};

// Whether each place has rows and columns to begin at.
inline bool has_dilation_phases(const Geometry& g) {
  const auto one = [](Pair p) { return p.h == 1 && p.w == 1; };
  const auto fits = [&](Pair p) { return p.h >= g.dilation.h && p.w >= g.dilation.w; };
  return one(g.stride) && !is_pooled(g) && fits(g.image) && fits(g.conv);
}

// at: the first row and column of the result.
inline DilationPhase dilation_phase(const Geometry& g, Pair at) {
  struct Side {
    int64_t input, image, conv, padding;
  };
  const auto side = [](int64_t first, int64_t dilation, int64_t image, int64_t conv,
                       int64_t padding) {
    const auto every = [&](int64_t size, int64_t from) {
      return (size - from + dilation - 1) / dilation;
    };
    // Row q * dilation + first of the result looks at row (q + i - zeros) * dilation + input.
    const int64_t zeros = (padding - first + dilation - 1) / dilation;
    const int64_t input = first - padding + zeros * dilation;
    return Side{input, every(image, input), every(conv, first), zeros};
  };
  const Side rows = side(at.h, g.dilation.h, g.image.h, g.conv.h, g.padding.h);
  const Side columns = side(at.w, g.dilation.w, g.image.w, g.conv.w, g.padding.w);
  DilationPhase phase{g, {rows.input, columns.input}};
  phase.geometry.dilation = {1, 1};
  phase.geometry.image = {rows.image, columns.image};
  phase.geometry.padding = {rows.padding, columns.padding};
  phase.geometry.conv = phase.geometry.pooled = {rows.conv, columns.conv};
  return phase;
}

}  // namespace convship::kernels::conv2d
