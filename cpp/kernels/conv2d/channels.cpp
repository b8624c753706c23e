#include "kernels/conv2d/channels.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/destination.h"
#include "kernels/conv2d/strip.h"
#include "kernels/conv2d/taps.h"

namespace convship::kernels::conv2d {
namespace {

// Where the taps of a weight are, seen from the first.
std::vector<int32_t> tap_offsets(const View<const void>& steps, const Geometry& g) {
  std::vector<int32_t> offsets;
  const int64_t channels = g.c_in / g.groups;
  offsets.reserve(channels * g.kernel.h * g.kernel.w);
  for_each_tap(channels, g.kernel, [&](int64_t c, int64_t i, int64_t j) {
    offsets.push_back(static_cast<int32_t>(steps.channel(c) + i * g.dilation.h * steps.h_step +
                                           j * g.dilation.w * steps.w_step));
  });
  return offsets;
}

// The input as the loop reads it: where it is, or as strips.
template <typename T>
struct StripPlan {
  bool in_place;
  View<const void> source_steps;
  bool adjoin;
  int64_t channels;
  int64_t columns;

  // In place where there is no padding to add, nothing to convert, and the
  // planes of many channels cannot get into each other's way in the cache.
  StripPlan(const Geometry& g, const View<const T>& input, bool same_type)
      : source_steps{nullptr, 0, input.c_step, input.h_step, input.w_step, input.block},
        adjoin(input.channels_adjoin()),
        channels(g.c_in / g.groups),
        columns((g.conv.w - 1) * g.stride.w + (g.kernel.w - 1) * g.dilation.w + 1) {
    const int64_t reach =
        input.channel(g.c_in) + g.image.h * input.h_step + g.image.w * input.w_step;
    in_place = same_type && g.padding.h == 0 && g.padding.w == 0 &&
               (input.block == 1 || g.groups == 1) && (channels <= 8 || adjoin) &&
               reach < std::numeric_limits<int32_t>::max();
  }

  Strip strip(int64_t rows) const { return Strip::like(adjoin, channels, rows, columns); }
  int64_t row_bytes(int64_t value) const { return in_place ? 0 : strip(1).size * value; }
};

}  // namespace

template <typename T>
ChannelsPack<T>::ChannelsPack(const Loops<A>& loops,
                              const WeightShape& shape,
                              const T* weight,
                              const T* bias)
    : loops_(loops), shape_(shape), blocks_(ceil_div(shape.c_out / shape.groups, block_size())) {
  const int64_t taps = shape.channels * shape.kernel.h * shape.kernel.w;
  const int64_t lanes = loops.lanes;
  const int64_t out = shape.c_out / shape.groups;
  weight_ = make_aligned<A>(shape.groups * blocks_ * taps * block_size());
  bias_ = make_aligned<A>(shape.groups * blocks_ * block_size());
  for (int64_t block = 0; block < shape.groups * blocks_; ++block) {
    const int64_t first = block % blocks_ * block_size();
    const int64_t exist = std::min(block_size(), out - first);
    const int64_t packed = exist <= lanes ? lanes : block_size();
    const int64_t o = block / blocks_ * out + first;
    pack_taps(shape, weight + o * taps, exist, packed, weight_.get() + block * taps * block_size());
    for (int64_t k = 0; k < block_size(); ++k) {
      const A value = bias && k < exist ? Accumulator<T>::widen(bias[o + k]) : A(0);
      bias_[block * block_size() + k] = value + A(0);  // never -0.0
    }
  }
}

template <typename T>
std::vector<int64_t> ChannelsPack<T>::run(const Call<T>& call, const Parallel& parallel) const {
  const Geometry& g = call.geometry;
  const View<const T>& input = call.input;
  const int64_t channels = g.c_in / g.groups;
  const int64_t out = g.c_out / g.groups;
  const StripPlan<T> plan(g, input, std::is_same_v<T, A>);
  const Cut c = cut(g, blocks_, block_size(), plan.row_bytes(sizeof(A)), parallel.width());
  const Strip strip = plan.strip(rows_under(conv_rows_of(c.band_rows, g), g));
  const View<const void> steps = plan.in_place ? plan.source_steps : strip.steps;
  const std::vector<int32_t> offsets = tap_offsets(steps, g);
  const Destination<T> destination(call, loops_.lanes);

  ChannelsTask<A> base{};
  base.source = {nullptr,
                 0,
                 g.stride.h * steps.h_step,
                 g.stride.w * steps.w_step,
                 offsets.data(),
                 static_cast<int64_t>(offsets.size())};
  base.pool = {g.conv, g.pooled.w, g.pool_size, g.pool_stride, g.pool_padding, 0, 0};
  const int64_t scratch = ceil_div(channels_scratch(base.pool, loops_.lanes), 16) * 16;
  const int64_t buffer = ceil_div(destination.buffer_size(block_size(), c.band_rows), 16) * 16;

  parallel.run(g.n * g.groups * c.bands * c.parts, 1, [&](int64_t begin, int64_t end) {
    const auto memory = make_aligned<A>(scratch + buffer + (plan.in_place ? 0 : strip.size));
    A* const rows = memory.get() + scratch + buffer;
    int64_t staged = -1;
    for (int64_t item = begin; item < end; ++item) {
      const Item i = c.item(item, g);
      ChannelsTask<A> task = base;
      task.scratch = memory.get();
      task.pool.begin = i.band * c.band_rows;
      task.pool.end = std::min(g.pooled.h, task.pool.begin + c.band_rows);
      task.source.first_row = first_conv_row(task.pool.begin, g);
      if (!plan.in_place && staged != item / c.parts) {
        copy_strip(strip, input, g.image, i.n, i.group * channels,
                   task.source.first_row * g.stride.h - g.padding.h, -g.padding.w, rows);
        staged = item / c.parts;
      }
      task.source.x = rows;
      if constexpr (std::is_same_v<T, A>) {
        if (plan.in_place) {
          task.source.x = input.at(i.n, i.group * channels, task.source.first_row * g.stride.h, 0);
        }
      }
      for (int64_t b = i.part * c.part_blocks; b < std::min(blocks_, (i.part + 1) * c.part_blocks);
           ++b) {
        const int64_t block = i.group * blocks_ + b;
        const int64_t exist = std::min(block_size(), out - b * block_size());
        task.vectors = exist <= loops_.lanes ? 1 : kMaxVectors;
        task.weight = weight_.get() + block * base.source.taps * block_size();
        task.bias = bias_.get() + block * block_size();
        destination.run(task, i.n, i.group * out + b * block_size(), exist, memory.get() + scratch,
                        loops_.channels);
      }
    }
  });
  return {};
}

template class ChannelsPack<float>;
template class ChannelsPack<double>;
template class ChannelsPack<BFloat16>;

}  // namespace convship::kernels::conv2d
