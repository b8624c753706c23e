#include "kernels/conv2d/columns.h"

#include <algorithm>

#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/destination.h"
#include "kernels/conv2d/strip.h"
#include "kernels/conv2d/taps.h"
#include "kernels/scratch.h"

namespace convship::kernels::conv2d {

// Rows of the input, split into phases.
//
// Conv column j of phase s is q * stride + s, and its tap k lies at input
// column (q * stride + s) * conv_stride - padding + k * dilation: at place
// q + (s * conv_stride + k * dilation) / phases of a phase of its own, where
// phases = stride * conv_stride and the padding is part of the row.
template <typename T>
class ColumnsPack<T>::Strips {
 public:
  Strips(const Loops<A>& loops, const Geometry& g, const View<const T>& input)
      : loops_(loops),
        g_(g),
        input_(input),
        channels_(g.c_in / g.groups),
        phases_(g.pool_stride.w * g.stride.w) {
    const int64_t lanes = loops.lanes;
    const int64_t reach = (g.pool_stride.w - 1) * g.stride.w + (g.kernel.w - 1) * g.dilation.w;
    const int64_t count = ceil_div(g.conv.w, g.pool_stride.w);
    const int64_t places = std::max(reach / phases_ + 1 + ceil_div(count, lanes) * lanes,
                                    // Where the image ends, be it read or not.
                                    ceil_div(g.image.w + g.padding.w, phases_) + 1);
    phase_size_ = ceil_div(places, lanes) * lanes;
  }

  int64_t row_size() const { return phases_ * phase_size_; }
  int64_t size(int64_t rows) const {
    return channels_ * rows * row_size() + (plain_input() ? 0 : copy_size(rows));
  }

  std::vector<int32_t> offsets(int64_t rows) const {
    const int64_t stride = g_.pool_stride.w;
    // Of a kernel column and a phase of conv columns: divisions, which would
    // take as long as the sums of a small image if each tap made its own.
    std::vector<int64_t> places;
    for (int64_t k = 0; k < g_.kernel.w; ++k) {
      for (int64_t s = 0; s < stride; ++s) {
        const int64_t column = s * g_.stride.w + k * g_.dilation.w;
        places.push_back(column % phases_ * phase_size_ + column / phases_);
      }
    }
    std::vector<int32_t> result;
    result.reserve(channels_ * g_.kernel.h * g_.kernel.w * stride);
    for_each_tap(channels_, g_.kernel, [&](int64_t c, int64_t i, int64_t k) {
      const int64_t row = (c * rows + i * g_.dilation.h) * row_size();
      for (int64_t s = 0; s < stride; ++s) {
        result.push_back(static_cast<int32_t>(row + places[k * stride + s]));
      }
    });
    return result;
  }

  // Rows [y, y + rows) of a group's channels, y may be outside of the image.
  void split(int64_t n, int64_t group, int64_t y, int64_t rows, A* to) const {
    ColumnsSplit<A> task{};
    task.channels = channels_;
    task.rows = rows;
    task.left = g_.padding.w;
    task.phases = phases_;
    task.phase_size = phase_size_;
    task.to = to;
    const int64_t c = group * channels_;
    if constexpr (std::is_same_v<T, A>) {
      if (plain_input()) {
        task.from = input_.at(n, c, 0, 0);
        task.c_step = input_.c_step;
        task.h_step = input_.h_step;
        task.image = g_.image;
        task.top = y;
        loops_.columns_split(task);
        return;
      }
    }
    A* const copy = to + channels_ * rows * row_size();
    const Strip strip = Strip::like(false, channels_, rows, g_.image.w);
    copy_strip(strip, input_, g_.image, n, c, y, 0, copy);
    task.from = copy;
    task.c_step = strip.steps.c_step;
    task.h_step = strip.steps.h_step;
    task.image = {rows, g_.image.w};
    loops_.columns_split(task);
  }

 private:
  bool plain_input() const {
    return std::is_same_v<T, A> && input_.block == 1 && input_.w_step == 1;
  }
  int64_t copy_size(int64_t rows) const { return channels_ * rows * g_.image.w; }

  const Loops<A>& loops_;
  const Geometry& g_;
  const View<const T>& input_;
  int64_t channels_;
  int64_t phases_;
  int64_t phase_size_;
};

template <typename T>
ColumnsPack<T>::ColumnsPack(const Loops<A>& loops,
                            const WeightShape& shape,
                            const T* weight,
                            const T* bias)
    : loops_(loops) {
  const int64_t taps = shape.channels * shape.kernel.h * shape.kernel.w;
  const int64_t out = shape.c_out / shape.groups;
  // Of equal size: a last block of one channel has too few independent sums.
  blocks_ = ceil_div(out, loops.columns_channels);
  block_size_ = ceil_div(out, blocks_);
  blocks_ = ceil_div(out, block_size_);
  weight_ = make_aligned<A>(shape.c_out * taps);
  bias_ = make_aligned<A>(shape.c_out);
  for (int64_t o = 0; o < shape.c_out; ++o) {
    bias_[o] = (bias ? Accumulator<T>::widen(bias[o]) : A(0)) + A(0);  // never -0.0
  }
  A* to = weight_.get();
  for (int64_t block = 0; block < shape.groups * blocks_; ++block) {
    const int64_t first = block % blocks_ * block_size_;
    const int64_t o = block / blocks_ * out + first;
    const int64_t exist = std::min(block_size_, out - first);
    pack_taps(shape, weight + o * taps, exist, exist, to);
    to += exist * taps;
  }
}

template <typename T>
void ColumnsPack<T>::run_in_planes(const Call<T>& call, const Parallel& parallel) const {
  if constexpr (std::is_same_v<T, A>) {
    const Geometry& g = call.geometry;
    const int64_t in = g.image.h * g.image.w, out = g.pooled.h * g.pooled.w;
    const bool back = call.output.channels_adjoin() && call.output.block == 1;
    const auto x = make_scratch<T>(g.n * g.c_in * in);
    const auto y = make_scratch<T>(back ? g.n * g.c_out * out : 0);
    parallel.run(g.n * g.image.h, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / g.image.h, row = i % g.image.h;
        loops_.transpose(call.input.at(n, 0, row, 0), call.input.w_step, g.image.w, g.c_in,
                         x.get() + n * g.c_in * in + row * g.image.w, in);
      }
    });
    const View<const T> planes = nchw<const T>(x.get(), g.c_in, g.image);
    const View<T> output = back ? nchw(y.get(), g.c_out, g.pooled) : call.output;
    run({g, call.activation, planes, output, call.residual, call.index}, parallel);
    if (!back) return;
    parallel.run(g.n * g.pooled.h, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / g.pooled.h, row = i % g.pooled.h;
        loops_.transpose(y.get() + n * g.c_out * out + row * g.pooled.w, out, g.c_out, g.pooled.w,
                         call.output.at(n, 0, row, 0), call.output.w_step);
      }
    });
  }
}

template <typename T>
std::vector<int64_t> ColumnsPack<T>::run(const Call<T>& call, const Parallel& parallel) const {
  if constexpr (std::is_same_v<T, A>) {
    if (call.geometry.groups > 1 && call.input.channels_adjoin() && call.input.w_step > 1 &&
        call.input.block == 1 && !call.residual.data) {
      run_in_planes(call, parallel);
      return {};
    }
  }
  // One window has no stride.
  Geometry g = call.geometry;
  if (g.pooled.w == 1) g.pool_stride.w = 1;
  const Strips strips(loops_, g, call.input);
  const Cut c = cut(g, blocks_, block_size_, g.c_in / g.groups * strips.row_size() * sizeof(A),
                    parallel.width());
  const int64_t rows = rows_under(conv_rows_of(c.band_rows, g), g);
  const std::vector<int32_t> offsets = strips.offsets(rows);
  const Destination<T> destination(call, 1);
  const int64_t out = g.c_out / g.groups;

  ColumnsTask<A> base{};
  base.row_step = g.stride.h * strips.row_size();
  base.offsets = offsets.data();
  base.taps = g.c_in / g.groups * g.kernel.h * g.kernel.w;
  base.pool = {g.conv, g.pooled.w, g.pool_size, g.pool_stride, g.pool_padding, 0, 0};
  const int64_t scratch =
      ceil_div(columns_scratch(base.pool, block_size_, loops_.lanes).size, 16) * 16;
  const int64_t buffer = ceil_div(destination.buffer_size(block_size_, c.band_rows), 16) * 16;

  parallel.run(g.n * g.groups * c.bands * c.parts, 1, [&](int64_t begin, int64_t end) {
    const auto memory = make_scratch<A>(scratch + buffer + strips.size(rows));
    A* const strip = memory.get() + scratch + buffer;
    int64_t staged = -1;
    for (int64_t item = begin; item < end; ++item) {
      const Item i = c.item(item, g);
      ColumnsTask<A> task = base;
      task.x = strip;
      task.scratch = memory.get();
      const Range pooled = c.rows(i.band, g);
      task.pool.begin = pooled.begin;
      task.pool.end = pooled.end;
      task.first_row = first_conv_row(task.pool.begin, g);
      if (staged != item / c.parts) {
        strips.split(i.n, i.group, task.first_row * g.stride.h - g.padding.h, rows, strip);
        staged = item / c.parts;
      }
      for (int64_t b = i.part * c.part_blocks; b < std::min(blocks_, (i.part + 1) * c.part_blocks);
           ++b) {
        const int64_t o = i.group * out + b * block_size_;
        task.weight = weight_.get() + o * base.taps;
        task.bias = bias_.get() + o;
        destination.run(task, i.n, o, std::min(block_size_, out - b * block_size_),
                        memory.get() + scratch, loops_.columns);
      }
    }
  });
  return {};
}

template class ColumnsPack<float>;
template class ColumnsPack<double>;
template class ColumnsPack<BFloat16>;

}  // namespace convship::kernels::conv2d
