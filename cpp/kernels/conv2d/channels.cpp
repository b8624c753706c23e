#include "kernels/conv2d/channels.h"

#include <algorithm>

#include "kernels/conv2d/channels_input.h"
#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/destination.h"
#include "kernels/conv2d/taps.h"

namespace convship::kernels::conv2d {
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
  const int64_t out = g.c_out / g.groups;
  ChannelsInput<T> input(loops_, g, call.input);
  const Cut c = cut(g, blocks_, block_size(), input.row_bytes(), parallel.width());
  input.set_rows(rows_under(conv_rows_of(c.band_rows, g), g));
  const View<const void>& steps = input.steps();
  const std::vector<int32_t> offsets = input.offsets();
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
    const auto memory = make_aligned<A>(scratch + buffer + input.size());
    A* const rows = memory.get() + scratch + buffer;
    const A* x = nullptr;
    int64_t place = -1;
    for (int64_t item = begin; item < end; ++item) {
      const Item i = c.item(item, g);
      ChannelsTask<A> task = base;
      task.scratch = memory.get();
      task.pool.begin = i.band * c.band_rows;
      task.pool.end = std::min(g.pooled.h, task.pool.begin + c.band_rows);
      task.source.first_row = first_conv_row(task.pool.begin, g);
      if (place != item / c.parts) {
        place = item / c.parts;
        x = input.band(i.n, i.group, task.source.first_row * g.stride.h, rows);
      }
      task.source.x = x;
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
