// Depthwise layers, channels in the lanes: packs weights for the loop of
// isa/channels-inl.h, in which each lane has an input channel of its own.
#pragma once

#include "kernels/conv2d/channels.h"

namespace convship::kernels::conv2d {

// T is what it sums in: float or double.
template <typename T>
class DepthwisePack final : public Pack<T> {
 public:
  DepthwisePack(const Loops<T>& loops, const WeightShape& shape, const T* weight, const T* bias);

  std::vector<int64_t> run(const Call<T>& call, const Parallel& parallel) const override;

 private:
  const Loops<T>& loops_;
  PackedChannels<T> packed_;  // of groups that are a vector of channels
};

}  // namespace convship::kernels::conv2d
