// Output channels in the lanes: packs weights for the loop of
// isa/channels-inl.h, cuts a call into tasks and gives it its strips.
#pragma once

#include "kernels/aligned.h"
#include "kernels/conv2d/pack.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {

// How the output channels of a group fall into blocks: two vectors each; an odd
// one joins the last, or is a block of its own.
class ChannelBlocks {
 public:
  ChannelBlocks(const WeightShape& shape, int lanes, bool joins_odd = true);

  struct Block {
    int64_t first;  // output channel of the group
    int64_t exist;
    int vectors;
  };
  Block operator[](int64_t number) const;
  int64_t count() const { return count_; }
  int64_t lanes() const { return lanes_; }
  int64_t out() const { return out_; }  // channels of a group
  int64_t padded() const { return vectors_ * lanes_; }

 private:
  int64_t lanes_;
  int64_t out_;
  int64_t vectors_;
  int64_t count_;
};

// What the loop reads, ordered by group and block.
template <typename A>
struct PackedChannels {
  explicit PackedChannels(const ChannelBlocks& all) : blocks(all) {}

  ChannelBlocks blocks;
  AlignedArray<A> weight;  // [group][block][tap][vectors * lanes]
  AlignedArray<A> bias;    // [group][vectors * lanes]
  AlignedArray<A> scale;   // as bias; null where sums need none
  void (*loop)(const ChannelsTask<A>&) = nullptr;
  bool pairs_blocks = false;                   // that loop can
  void (*narrow)(const Narrow<A>&) = nullptr;  // if T is BFloat16
};

// Input: as ChannelsInput.
template <typename T, typename Input>
void run_channels(const PackedChannels<AccumulatorOf<T>>& packed,
                  Input& input,
                  const Call<T>& call,
                  const Parallel& parallel);

template <typename T>
class ChannelsPack final : public Pack<T> {
 public:
  using A = AccumulatorOf<T>;
  ChannelsPack(const Loops<A>& loops, const WeightShape& shape, const T* weight, const T* bias);

  std::vector<int64_t> run(const Call<T>& call, const Parallel& parallel) const override;

 private:
  const Loops<A>& loops_;
  PackedChannels<A> packed_;
};

}  // namespace convship::kernels::conv2d
