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
  int64_t block_size() const { return kMaxVectors * loops_.lanes; }

  const Loops<A>& loops_;
  WeightShape shape_;
  int64_t blocks_;  // of output channels, in one group
  AlignedArray<A> weight_;
  AlignedArray<A> bias_;
};

}  // namespace convship::kernels::conv2d
