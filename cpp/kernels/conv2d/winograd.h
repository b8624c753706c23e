// Winograd's minimal filtering: packs transformed weights for the loops of
// isa/winograd-inl.h, cuts an image into strips of tiles and runs them.
#pragma once

#include "kernels/aligned.h"
#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/destination.h"
#include "kernels/conv2d/family.h"
#include "kernels/conv2d/pack.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {

// kOut x kOut results of a kernel of taps x taps.
struct WinogradShape {
  int64_t out;
  int64_t taps;
  int64_t reach() const { return out + taps - 1; }
  int64_t points() const { return reach() * reach(); }
};

// For the families whose name begins with winograd.
WinogradShape winograd_shape(Family family);

// Vectors in a block of output channels, of which a group has `out`: those that pad them least,
// or three, which take fewer loads a multiply-add.
int winograd_vectors(int64_t out, int64_t lanes);

template <typename T>
class WinogradPack final : public Pack<T> {
 public:
  using A = float;
  WinogradPack(const InstructionSet& isa,
               Family family,
               const WeightShape& shape,
               const T* weight,
               const T* bias);

  // Images with values so large that a transform could overflow, or that are
  // not finite, are refused: their results are left undefined and their
  // numbers returned.
  std::vector<int64_t> run(const Call<T>& call, const Parallel& parallel) const override;

 private:
  class Run;
  int64_t block_size() const { return vectors_ * lanes_; }

  const WinogradLoops<A>& loops_;
  int64_t lanes_;
  void (*narrow_)(const Narrow<A>&);
  WinogradShape tile_;
  WeightShape shape_;
  int vectors_;          // of output channels in a block
  int64_t channels_;     // padded to the lanes
  int64_t blocks_;       // of output channels, in one group
  bool stays_;           // in the second-level cache: all weights
  int64_t pass_blocks_;  // of them that are multiplied in one pass
  A limit_;              // inputs of a smaller magnitude cannot overflow
  AlignedArray<A> u_;    // [group][pass][point][block][channel][block_size]
  AlignedArray<A> bias_;
};

}  // namespace convship::kernels::conv2d
