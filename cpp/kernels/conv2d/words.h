// Output channels in the lanes, input channels two or four at a time: packs
// rounded weights for the loops of isa/words-inl.h.
#pragma once

#include "kernels/conv2d/channels.h"
#include "kernels/conv2d/rounding.h"
#include "kernels/scratch.h"

namespace convship::kernels::conv2d {

class WordsPack final : public Pack<float> {
 public:
  // Whether the loops can serve these calls: groups start at a block of `block`
  // channels and fill words, and integer sums cannot overflow.
  static bool serves(const Geometry& geometry, int64_t block, Rounding::Kind kind);

  WordsPack(const WordLoops& loops,
            const Rounding& rounding,
            const WeightShape& shape,
            const float* weight,
            const float* bias);

  std::vector<int64_t> run(const Call<float>& call, const Parallel& parallel) const override;

 private:
  void pack_group(const WeightShape& shape, int64_t group, const float* weight, const float* bias);

  const WordLoops& loops_;
  Rounding rounding_;
  PackedChannels<float> packed_;
};

// The input, rounded, as dense planes: for loops that multiply floats.
Scratch<float> rounded_planes(const View<const float>& input,
                              const Geometry& geometry,
                              const Rounding& rounding,
                              const Parallel& parallel);

}  // namespace convship::kernels::conv2d
