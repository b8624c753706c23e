// Columns in the lanes: packs weights for the loop of isa/columns-inl.h, cuts a
// call into tasks and gives it its strips.
#pragma once

#include "kernels/aligned.h"
#include "kernels/conv2d/pack.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {

template <typename T>
class ColumnsPack final : public Pack<T> {
 public:
  using A = AccumulatorOf<T>;
  ColumnsPack(const Loops<A>& loops, const WeightShape& shape, const T* weight, const T* bias);

  std::vector<int64_t> run(const Call<T>& call, const Parallel& parallel) const override;

 private:
  class Strips;

  // By way of planes, for channels that adjoin: a group has few of them, and
  // would be picked out of all one value at a time.
  void run_in_planes(const Call<T>& call, const Parallel& parallel) const;

  const Loops<A>& loops_;
  int64_t blocks_;      // of output channels, in one group
  int64_t block_size_;  // of all but the last
  AlignedArray<A> weight_;
  AlignedArray<A> bias_;
};

}  // namespace convship::kernels::conv2d
