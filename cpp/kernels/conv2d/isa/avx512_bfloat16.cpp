// Products of two bfloat16 at a time (AVX512_BF16, beside x86-64-v4).
#define CONVSHIP_REGISTERS 32
#include "kernels/conv2d/isa/words-inl.h"

namespace convship::kernels {
namespace conv2d {
namespace {

struct Pair16 {
  static constexpr int kChannels = 2;

  struct Product : OneProduct<D> {
    static constexpr bool kHasGroups = false;
    static HWY_INLINE Sum add(Sum sum, V value, V weight) {
      return Sum{_mm512_dpbf16_ps(sum.raw, (__m512bh)value.raw, (__m512bh)weight.raw)};
    }
  };

  static HWY_INLINE void store(__m512 values, const WordsCopy&, int32_t* to) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(values));
  }
  static HWY_INLINE int32_t outside(const WordsCopy&) { return 0; }
  static HWY_INLINE __m512i join(const __m512* planes, const WordsCopy&) {
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(planes[0]));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(planes[1]));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
  }
};

}  // namespace
}  // namespace conv2d

const WordLoops kAvx512Bfloat16 = conv2d::kWordLoops<conv2d::Pair16>;

}  // namespace convship::kernels
