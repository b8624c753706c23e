// Words of rounded channels: what the files that multiply them share. A `Word` (word-*-inl.h) is
//
//   kChannels                    in a word
//   Words                        of 16 channels, in a register
//   round(values, levels)        16 channels to 16 / kChannels words
//   store(words, to, count)      the first `count` of them
//   outside(levels)              the word of padding
//   join(planes, levels)         of kChannels vectors, each one channel of 16 columns:
//                                the columns' words
#pragma once

#include <immintrin.h>

#include "kernels/conv2d/isa/common-inl.h"

namespace convship::kernels::conv2d {
namespace {

using D = hn::ScalableTag<float>;
constexpr int64_t kLanes = 16;
static_assert(hn::MaxLanes(D()) == kLanes);

HWY_INLINE __m512 load_channels(const float* from, int64_t exist) {
  if (exist >= kLanes) return _mm512_loadu_ps(from);
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << exist) - 1), from);
}

// Rows of the part, and in each the columns [begin, end) that are inside.
template <typename T, class Visit, class Clear>
HWY_INLINE void for_rows(const Interleave<T>& t, const Visit& visit, const Clear& clear) {
  const int64_t begin = smaller(larger(-t.left, 0), t.columns);
  const int64_t end = larger(begin, smaller(t.image.w - t.left, t.columns));
  for (int64_t row = 0; row < t.rows; ++row) {
    const int64_t y = t.top + row;
    const bool inside = y >= 0 && y < t.image.h && begin < end;
    clear(row, 0, inside ? begin : t.columns);
    if (!inside) continue;
    clear(row, end, t.columns);
    visit(row, t.x + y * t.h_step + t.left * t.w_step, begin, end);
  }
}

}  // namespace
}  // namespace convship::kernels::conv2d
