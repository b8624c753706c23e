// Products of four 8-bit integers at a time (AVX512_VNNI, beside x86-64-v4):
// inputs from 0 to 255, weights from -127 to 127, exact sums.
#define CONVSHIP_REGISTERS 32
#include "kernels/conv2d/isa/words-inl.h"

namespace convship::kernels {
namespace conv2d {
namespace {

struct Four8 {
  static constexpr int kChannels = 4;

  // Integers in vectors of floats, which only this instruction and the end look
  // at: of the intrinsic's integers gcc 12 stores every sum in every tap.
  struct Product : OneProduct<D> {
    static constexpr bool kHasGroups = false;
    static HWY_INLINE Sum begin(const float* /*start*/) { return hn::Zero(D()); }
    static HWY_INLINE Sum add(Sum sum, V value, V weight) {
      asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(value.raw), "v"(weight.raw));
      return sum;
    }
    static HWY_INLINE V end(Sum sum, const float* start, const float* scale) {
      const V value{_mm512_cvtepi32_ps(_mm512_castps_si512(sum.raw))};
      return hn::MulAdd(value, hn::Load(D(), scale), hn::Load(D(), start));
    }
  };

  // As Rounding::level: to the nearest, ties to even; then limits.
  static HWY_INLINE __m512i levels(__m512 values, const WordsCopy& t) {
    const __m512 scaled = _mm512_mul_ps(values, _mm512_set1_ps(t.inverse_scale));
    // Far outside, where integers would overflow, the limits hold all the same.
    const __m512 most = _mm512_set1_ps(1e6f);
    const __m512 bounded = _mm512_min_ps(_mm512_max_ps(scaled, _mm512_set1_ps(-1e6f)), most);
    const __m512i level =
        _mm512_add_epi32(_mm512_cvtps_epi32(bounded), _mm512_set1_epi32(t.zero_point));
    return _mm512_max_epi32(_mm512_min_epi32(level, _mm512_set1_epi32(255)),
                            _mm512_setzero_si512());
  }
  static HWY_INLINE void store(__m512 values, const WordsCopy& t, int32_t* to) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(levels(values, t)));
  }
  static HWY_INLINE int32_t outside(const WordsCopy& t) {
    return static_cast<int32_t>(0x01010101u * static_cast<uint32_t>(t.zero_point));
  }
  static HWY_INLINE __m512i join(const __m512* planes, const WordsCopy& t) {
    __m512i word = levels(planes[0], t);
    CONVSHIP_UNROLL
    for (int k = 1; k < kChannels; ++k) {
      word = _mm512_or_si512(word, _mm512_slli_epi32(levels(planes[k], t), 8 * k));
    }
    return word;
  }
};

}  // namespace
}  // namespace conv2d

const WordLoops kAvx512Int8 = conv2d::kWordLoops<conv2d::Four8>;

}  // namespace convship::kernels
