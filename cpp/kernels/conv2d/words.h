// Output channels in the lanes, input channels two or four at a time: packs
// rounded weights for the loops of isa/words-inl.h.
#pragma once

#include "kernels/conv2d/channels.h"
#include "kernels/conv2d/rounding.h"
#include "kernels/conv2d/word_order.h"
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
  const WordLoops& loops_;
  Rounding rounding_;
  PackedChannels<float> packed_;
};

// Fills `packed` but for its loop: words of rounded weights in this order, bias and scale.
template <typename T>
void pack_words(const WeightShape& shape,
                const WordOrder& order,
                const Rounding& rounding,
                const T* weight,
                const T* bias,
                PackedChannels<float>& packed);

// The input, rounded, as dense planes: for loops that multiply floats.
Scratch<float> rounded_planes(const View<const float>& input,
                              const Geometry& geometry,
                              const Rounding& rounding,
                              const Parallel& parallel);

}  // namespace convship::kernels::conv2d
