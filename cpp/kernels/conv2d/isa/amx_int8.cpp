// Products of 8-bit integers in tiles (AMX-TILE, AMX-INT8): inputs from 0 to 255, weights from
// -127 to 127, exact sums.
#define CONVSHIP_REGISTERS 32
#include "kernels/conv2d/isa/tiles-inl.h"
#include "kernels/conv2d/isa/word-int8-inl.h"

namespace convship::kernels {
namespace conv2d {
namespace {

struct FourTiles {
  using Word = Four8;

  template <int kSum, int kX, int kW>
  static HWY_INLINE void multiply() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kX), "i"(kW));
  }
  static HWY_INLINE hn::Vec<D> end(hn::Vec<D> sum, const float* bias, const float* scale) {
    const hn::Vec<D> value{_mm512_cvtepi32_ps(_mm512_castps_si512(sum.raw))};
    return hn::MulAdd(value, hn::Load(D(), scale), hn::Load(D(), bias));
  }
};

}  // namespace
}  // namespace conv2d

const TileLoops kAmxInt8 = conv2d::kTileLoops<conv2d::FourTiles>;

}  // namespace convship::kernels
