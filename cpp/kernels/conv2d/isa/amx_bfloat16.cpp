// Products of bfloat16 in tiles (AMX-TILE, AMX-BF16; AVX512_BF16 rounds).
#define CONVSHIP_REGISTERS 32
#include "kernels/conv2d/isa/tiles-inl.h"
#include "kernels/conv2d/isa/word-bfloat16-inl.h"

namespace convship::kernels {
namespace conv2d {
namespace {

struct PairTiles {
  using Word = Pair16;

  template <int kSum, int kX, int kW>
  static HWY_INLINE void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kX), "i"(kW));
  }
  // Never -0.0, which a bias is not either.
  static HWY_INLINE hn::Vec<D> end(hn::Vec<D> sum, const float* bias, const float* /*scale*/) {
    return hn::Add(sum, hn::Load(D(), bias));
  }
};

constexpr TileLoops with_bfloat16(TileLoops loops) {
  loops.copy_bfloat16 = copy_tiles<Pair16, BFloat16>;
  return loops;
}

}  // namespace
}  // namespace conv2d

const TileLoops kAmxBfloat16 = conv2d::with_bfloat16(conv2d::kTileLoops<conv2d::PairTiles>);

}  // namespace convship::kernels
