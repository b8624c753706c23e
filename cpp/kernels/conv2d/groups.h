// Channels in the lanes, groups of few of them: packs weights for the
// loop of layers/isa/layers-inl.h and cuts a call into tasks.
#pragma once

#include "kernels/aligned.h"
#include "kernels/conv2d/pack.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {

class GroupsPack final : public Pack<float> {
 public:
  // Whether groups are small and channels adjoin in memory. Sums in the order of the
  // other direct loops.
  static bool serves(const Call<float>& call, const InstructionSet& isa);

  GroupsPack(const InstructionSet& isa,
             const WeightShape& shape,
             const float* weight,
             const float* bias);

  std::vector<int64_t> run(const Call<float>& call, const Parallel& parallel) const override;

 private:
  const LayerLoops& loops_;
  int64_t lanes_;
  int64_t width_;               // channels of a group
  AlignedArray<float> weight_;  // [vector][tap][width][lanes]
  AlignedArray<float> bias_;    // [vector][lanes]
};

}  // namespace convship::kernels::conv2d
