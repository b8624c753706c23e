// Products of four 8-bit integers at a time (AVX512_VNNI, beside x86-64-v4):
// inputs from 0 to 255, weights from -127 to 127, exact sums.
#define CONVSHIP_REGISTERS 32
#include "kernels/conv2d/isa/word-int8-inl.h"
#include "kernels/conv2d/isa/words-inl.h"

namespace convship::kernels {
namespace conv2d {
namespace {

// Integers in vectors of floats, which only this instruction and the end look
// at: of the intrinsic's integers gcc 12 stores every sum in every tap.
struct FourProduct : WordProduct<Four8> {
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

}  // namespace
}  // namespace conv2d

const WordLoops kAvx512Int8 = conv2d::kWordLoops<conv2d::Four8, conv2d::FourProduct>;

}  // namespace convship::kernels
