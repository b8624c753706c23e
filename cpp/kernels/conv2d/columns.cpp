#include "kernels/conv2d/columns.h"

#include <algorithm>

#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/destination.h"
#include "kernels/conv2d/strip.h"
#include "kernels/conv2d/taps.h"
#include "kernels/scratch.h"

namespace convship::kernels::conv2d {

namespace {

// How many conv rows to sum as if they were one: where a row alone leaves lanes or
// the multipliers idle. pitch: from one row to the next, 0 where no value of the next one
// follows.
int64_t joined_rows(const Geometry& g,
                    const Pool& pool,
                    int64_t pitch,
                    int64_t channels,
                    int64_t taps,
                    int64_t lanes,
                    bool indexed) {
  if (pitch == 0) return 0;
  // Multiply-adds of a vector, of a tap of a row; eight are in flight at least.
  constexpr int64_t kInFlight = 8;
  const int64_t wide = columns_wide(channels), vectors = ceil_div(g.conv.w, lanes);
  const auto tile = [&](int64_t count) {
    return count > 0 ? std::max(kInFlight, count * channels) : 0;
  };
  const auto joined = static_cast<double>(pitch * channels) / static_cast<double>(lanes);
  double alone = static_cast<double>(vectors / wide * tile(wide) + tile(vectors % wide));
  // What a joined row costs beside its sums, in sums of a tap: it is copied and, where its
  // windows would have been pooled in registers, pooled.
  double more = 6;
  if (pools_pairs(pool) && !indexed) {
    const int64_t tiles = ceil_div(pool.width, lanes), each = channels == 1 ? 2 : 1;
    alone = static_cast<double>(tiles / each * tile(4 * each) + tile(tiles % each * 4)) / 2;
    more = 20;
  }
  more *= static_cast<double>(channels) / static_cast<double>(taps);
  if (joined + more >= alone) return 0;
  return std::min(g.conv.h, ceil_div(4 * wide * lanes, pitch));
}

}  // namespace

// Rows of the input, split into as many phases as the convolution steps over columns.
//
// Tap k of conv column j lies at input column j * stride - padding + k * dilation: at place
// j + k * dilation / stride of phase k * dilation % stride, where the padding is part of
// the row.
template <typename T>
class ColumnsPack<T>::Strips {
 public:
  Strips(const Loops<A>& loops, const Geometry& g, const View<const T>& input)
      : loops_(loops),
        g_(g),
        input_(input),
        channels_(g.c_in / g.groups),
        phases_(g.stride.w),
        phase_size_(g.conv.w + (g.kernel.w - 1) * g.dilation.w / phases_),
        // The last vectors of the last row read on.
        slack_(2 * loops.lanes) {}

  int64_t row_size() const { return phases_ * phase_size_; }
  int64_t size(int64_t rows) const {
    return channels_ * rows * row_size() + slack_ + (plain_input() ? 0 : copy_size(rows));
  }

  std::vector<int32_t> offsets(int64_t rows) const {
    // Of a kernel column: divisions, which would take as long as the sums of a small image
    // if each tap made its own.
    std::vector<int64_t> places;
    for (int64_t k = 0; k < g_.kernel.w; ++k) {
      const int64_t column = k * g_.dilation.w;
      places.push_back(column % phases_ * phase_size_ + column / phases_);
    }
    std::vector<int32_t> result;
    result.reserve(channels_ * g_.kernel.h * g_.kernel.w);
    for_each_tap(channels_, g_.kernel, [&](int64_t c, int64_t i, int64_t k) {
      const int64_t row = (c * rows + i * g_.dilation.h) * row_size();
      result.push_back(static_cast<int32_t>(row + places[k]));
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
    task.slack = slack_;
    task.to = to;
    const int64_t c = group * channels_;
    if constexpr (std::is_same_v<T, A>) {
      if (plain_input()) {
        task.from = input_.at(n, c, 0, 0);
        task.c_step = input_.c_step;
        task.h_step = input_.h_step;
        task.w_step = input_.w_step;
        task.image = g_.image;
        task.top = y;
        loops_.columns_split(task);
        return;
      }
    }
    A* const copy = to + channels_ * rows * row_size() + slack_;
    const Strip strip = Strip::like(false, channels_, rows, g_.image.w);
    copy_strip(strip, input_, g_.image, n, c, y, 0, copy);
    task.from = copy;
    task.c_step = strip.steps.c_step;
    task.h_step = strip.steps.h_step;
    task.w_step = strip.steps.w_step;
    task.image = {rows, g_.image.w};
    loops_.columns_split(task);
  }

 private:
  bool plain_input() const { return std::is_same_v<T, A> && input_.block == 1; }
  int64_t copy_size(int64_t rows) const { return channels_ * rows * g_.image.w; }

  const Loops<A>& loops_;
  const Geometry& g_;
  const View<const T>& input_;
  int64_t channels_;
  int64_t phases_;
  int64_t phase_size_;
  int64_t slack_;
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
  const Destination<T> destination(call, 1, loops_.narrow);
  const int64_t out = g.c_out / g.groups;

  ColumnsTask<A> base{};
  base.row_step = g.stride.h * strips.row_size();
  base.offsets = offsets.data();
  base.taps = g.c_in / g.groups * g.kernel.h * g.kernel.w;
  base.pool = pool_of(g);
  base.joined_rows =
      joined_rows(g, base.pool, g.stride.h == 1 && g.stride.w == 1 ? base.row_step : 0, block_size_,
                  base.taps, loops_.lanes, bool(call.index));
  const int64_t scratch = ceil_div(columns_scratch(base.pool, base.joined_rows, base.row_step,
                                                   block_size_, loops_.lanes)
                                       .size,
                                   16) *
                          16;
  const int64_t buffer = ceil_div(destination.buffer_size(block_size_, c.band_rows), 16) * 16;

  const int64_t ring = ceil_div(columns_ring(base.pool, block_size_, loops_.lanes), 16) * 16;
  const int64_t rings = c.keeps_rings ? blocks_ * ring : ring;

  parallel.run(g.n * g.groups * c.bands * c.parts, 1, [&](int64_t begin, int64_t end) {
    const auto memory = make_scratch<A>(scratch + buffer + rings + strips.size(rows));
    A* const strip = memory.get() + scratch + buffer + rings;
    int64_t staged = -1;
    for (int64_t item = begin; item < end; ++item) {
      const Item i = c.item(item, g);
      ColumnsTask<A> task = base;
      task.x = strip;
      task.scratch = memory.get();
      const Range pooled = c.rows(i.band, g);
      task.pool.begin = pooled.begin;
      task.pool.end = pooled.end;
      task.pool.done = item > begin ? c.conv_rows_before(i.band, g) : 0;
      task.first_row = std::max(first_conv_row(task.pool.begin, g), task.pool.done);
      if (staged != item / c.parts) {
        strips.split(i.n, i.group, task.first_row * g.stride.h - g.padding.h, rows, strip);
        staged = item / c.parts;
      }
      for (int64_t b = i.part * c.part_blocks; b < std::min(blocks_, (i.part + 1) * c.part_blocks);
           ++b) {
        const int64_t o = i.group * out + b * block_size_;
        task.ring = memory.get() + scratch + buffer + (c.keeps_rings ? b * ring : 0);
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
