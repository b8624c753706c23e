// Words of two bfloat16; see rounding-inl.h.
#pragma once

#include "kernels/conv2d/isa/rounding-inl.h"

namespace convship::kernels::conv2d {
namespace {

struct Pair16 {
  static constexpr int64_t kChannels = 2;
  using Words = __m256i;

  static HWY_INLINE Words round(__m512 values, const Levels&) {
    return (__m256i)_mm512_cvtneps_pbh(values);
  }
  // Of numbers that are bfloat16 already.
  static HWY_INLINE Words round(__m256i values, const Levels&) { return values; }
  static HWY_INLINE void store(Words words, int32_t* to, int64_t count) {
    if (count >= 8) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), words);
    _mm256_mask_storeu_epi32(to, static_cast<__mmask8>((1u << count) - 1), words);
  }
  static HWY_INLINE int32_t outside(const Levels&) { return 0; }
  template <class V>  // as round's
  static HWY_INLINE __m512i join(const V* planes, const Levels& levels) {
    const __m512i low = _mm512_cvtepu16_epi32(round(planes[0], levels));
    const __m512i high = _mm512_cvtepu16_epi32(round(planes[1], levels));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
  }
};

}  // namespace
}  // namespace convship::kernels::conv2d
