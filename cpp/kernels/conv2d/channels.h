// Output channels in the lanes: packs weights for the loop of
// isa/channels-inl.h, cuts a call into tasks and gives it its strips.
#pragma once

#include "kernels/aligned.h"
#include "kernels/conv2d/pack.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {

template <typename T>
class ChannelsPack final : public Pack<T> {
 public:
  using A = AccumulatorOf<T>;
  ChannelsPack(const Loops<A>& loops, const WeightShape& shape, const T* weight, const T* bias);

  std::vector<int64_t> run(const Call<T>& call, const Parallel& parallel) const override;

 private:
  // Two vectors of output channels make a block; an odd one joins the last.
  struct Block {
    int64_t first;  // output channel of the group
    int64_t exist;
    int vectors;
  };
  Block block(int64_t number) const;
  int64_t vectors_in_group() const;

  const Loops<A>& loops_;
  WeightShape shape_;
  int64_t blocks_;          // in one group
  AlignedArray<A> weight_;  // [group][block][tap][vectors * lanes]
  AlignedArray<A> bias_;    // [group][vectors * lanes]
};

}  // namespace convship::kernels::conv2d
