// Products of two bfloat16 at a time (AVX512_BF16, beside x86-64-v4).
#define CONVSHIP_REGISTERS 32
#include "kernels/conv2d/isa/word-bfloat16-inl.h"
#include "kernels/conv2d/isa/words-inl.h"

namespace convship::kernels {
namespace conv2d {
namespace {

struct PairProduct : WordProduct<Pair16> {
  static HWY_INLINE Sum add(Sum sum, V value, V weight) {
    return Sum{_mm512_dpbf16_ps(sum.raw, (__m512bh)value.raw, (__m512bh)weight.raw)};
  }
};

}  // namespace
}  // namespace conv2d

const WordLoops kAvx512Bfloat16 = conv2d::kWordLoops<conv2d::Pair16, conv2d::PairProduct>;

}  // namespace convship::kernels
