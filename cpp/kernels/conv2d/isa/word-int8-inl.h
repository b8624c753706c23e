// Words of four 8-bit integers; see rounding-inl.h.
#pragma once

#include "kernels/conv2d/isa/rounding-inl.h"

namespace convship::kernels::conv2d {
namespace {

struct Four8 {
  static constexpr int64_t kChannels = 4;
  using Words = __m128i;

  // As Rounding::level: to the nearest, ties to even; then limits.
  static HWY_INLINE __m512i levels_of(__m512 values, const Levels& levels) {
    const __m512 scaled = _mm512_mul_ps(values, _mm512_set1_ps(levels.inverse_scale));
    // Far outside, where integers would overflow, the limits hold all the same.
    const __m512 most = _mm512_set1_ps(1e6f);
    const __m512 bounded = _mm512_min_ps(_mm512_max_ps(scaled, _mm512_set1_ps(-1e6f)), most);
    const __m512i level =
        _mm512_add_epi32(_mm512_cvtps_epi32(bounded), _mm512_set1_epi32(levels.zero_point));
    return _mm512_max_epi32(_mm512_min_epi32(level, _mm512_set1_epi32(255)),
                            _mm512_setzero_si512());
  }
  static HWY_INLINE Words round(__m512 values, const Levels& levels) {
    return _mm512_cvtepi32_epi8(levels_of(values, levels));
  }
  static HWY_INLINE void store(Words words, int32_t* to, int64_t count) {
    if (count >= 4) return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), words);
    _mm_mask_storeu_epi32(to, static_cast<__mmask8>((1u << count) - 1), words);
  }
  static HWY_INLINE int32_t outside(const Levels& levels) {
    return static_cast<int32_t>(0x01010101u * static_cast<uint32_t>(levels.zero_point));
  }
  static HWY_INLINE __m512i join(const __m512* planes, const Levels& levels) {
    __m512i word = levels_of(planes[0], levels);
    CONVSHIP_UNROLL
    for (int64_t k = 1; k < kChannels; ++k) {
      word = _mm512_or_si512(
          word, _mm512_slli_epi32(levels_of(planes[k], levels), static_cast<unsigned>(8 * k)));
    }
    return word;
  }
};

}  // namespace
}  // namespace convship::kernels::conv2d
