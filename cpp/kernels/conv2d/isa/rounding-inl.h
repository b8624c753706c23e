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

// The first `count` lanes.
HWY_INLINE __mmask16 first_of(int64_t count) {
  return static_cast<__mmask16>((uint32_t{1} << smaller(count, kLanes)) - 1);
}

// The first `count` of 16 values that adjoin; zeros after them.
HWY_INLINE __m512 load_lanes(const float* from, int64_t count) {
  return _mm512_maskz_loadu_ps(first_of(count), from);
}
HWY_INLINE __m256i load_lanes(const BFloat16* from, int64_t count) {
  return _mm256_maskz_loadu_epi16(first_of(count), from);
}

// The same of values `step` apart.
template <typename T>
HWY_INLINE auto load_lanes_apart(const T* from, int64_t step, int64_t count) {
  if (step == 1) return load_lanes(from, count);
  alignas(64) T lanes[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = from[i * step];
  return load_lanes(lanes, kLanes);
}

// The words of `count` columns: of neighbouring channels from `from` on, of which `exist` do.
template <class Word, typename T>
HWY_INLINE __m512i column_words(
    const Interleave<T>& t, const T* from, int64_t exist, int64_t count, const Levels& levels) {
  decltype(load_lanes(from, count)) planes[Word::kChannels];
  CONVSHIP_UNROLL
  for (int64_t k = 0; k < Word::kChannels; ++k) {
    planes[k] = load_lanes_apart(from + k * t.c_step, t.w_step, k < exist ? count : 0);
  }
  return Word::join(planes, levels);
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
