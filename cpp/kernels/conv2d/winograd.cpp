#include "kernels/conv2d/winograd.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/conv2d/band.h"
#include "kernels/conv2d/dilation.h"
#include "kernels/conv2d/strip.h"
#include "kernels/scratch.h"

namespace convship::kernels::conv2d {
namespace {

// The finite points of each transform, in the order of isa/winograd-inl.h.
std::vector<double> points_of(int64_t reach) {
  if (reach == 4) return {0, 1, -1};
  return {0, 0.625, -0.625, 1.5, -1.5};
}

// G of the transform, [reach][taps].
std::vector<double> weight_transform(WinogradShape tile) {
  const std::vector<double> points = points_of(tile.reach());
  std::vector<double> g(tile.reach() * tile.taps, 0.0);
  for (std::size_t p = 0; p < points.size(); ++p) {
    double factor = 1;
    for (std::size_t q = 0; q < points.size(); ++q) {
      if (q != p) factor /= points[p] - points[q];
    }
    for (int64_t j = 0; j < tile.taps; ++j, factor *= points[p]) g[p * tile.taps + j] = factor;
  }
  g.back() = 1;  // infinity takes the last tap
  return g;
}

// How much two-dimensional transforms of inputs and of products can grow the
// largest magnitude: the squares of the largest sums along a row.
double largest_growth(WinogradShape tile) {
  const std::vector<double> points = points_of(tile.reach());
  double input = 0, output = 0;
  for (std::size_t left_out = 0; left_out <= points.size(); ++left_out) {
    double product = 1;  // of 1 + |p|: no less than the sum of |coefficients|
    for (std::size_t q = 0; q < points.size(); ++q) {
      if (q != left_out) product *= 1 + std::abs(points[q]);
    }
    input = std::max(input, product);
  }
  for (int64_t k = 0; k < tile.out; ++k) {
    double sum = 1;
    for (const double p : points) sum += std::pow(std::abs(p), static_cast<double>(k));
    output = std::max(output, sum);
  }
  return input * input * output * output;
}

// Weights [o][c][taps] of `exist` output channels as [c][taps][packed].
template <typename T>
void by_channel(
    const WeightShape& shape, const T* weight, int64_t exist, int64_t packed, float* to) {
  const int64_t count = shape.channels * shape.kernel.h * shape.kernel.w;
  if (exist < packed) std::fill_n(to, count * packed, 0.0f);
  for (int64_t o = 0; o < exist; ++o) {
    for (int64_t i = 0; i < count; ++i) {
      to[i * packed + o] = Accumulator<T>::widen(weight[o * count + i]);
    }
  }
}

const WinogradLoops<float>& loops_for(const InstructionSet& isa, Family family) {
  if (family == Family::winograd_2x2_3x3) return isa.winograd_2x2_3x3;
  if (family == Family::winograd_4x4_3x3) return isa.winograd_4x4_3x3;
  return isa.winograd_2x2_5x5;
}

}  // namespace

WinogradShape winograd_shape(Family family) {
  if (family == Family::winograd_2x2_3x3) return {2, 3};
  if (family == Family::winograd_4x4_3x3) return {4, 3};
  return {2, 5};
}

int winograd_vectors(int64_t out, int64_t lanes) {
  const int64_t vectors = ceil_div(out, lanes);
  return ceil_div(vectors, 3) * 3 <= ceil_div(vectors, 2) * 2 ? 3 : 2;
}

template <typename T>
WinogradPack<T>::WinogradPack(const InstructionSet& isa,
                              Family family,
                              const WeightShape& shape,
                              const T* weight,
                              const T* bias)
    : loops_(loops_for(isa, family)),
      lanes_(isa.single.lanes),
      narrow_(isa.single.narrow),
      tile_(winograd_shape(family)),
      shape_(shape),
      vectors_(winograd_vectors(shape.c_out / shape.groups, lanes_)),
      channels_(ceil_div(shape.channels, lanes_) * lanes_),
      blocks_(ceil_div(shape.c_out / shape.groups, block_size())) {
  const int64_t points = tile_.points();
  const int64_t out = shape.c_out / shape.groups;
  // One block after the other, while all weights stay in the cache; all blocks
  // point by point, where those of a single block do not fit.
  const int64_t block_bytes = points * channels_ * block_size() * sizeof(A);
  stays_ = block_bytes * blocks_ <= second_level_cache();
  pass_blocks_ = stays_ ? 1
                 : block_bytes > second_level_cache()
                     ? blocks_
                     : std::min<int64_t>(blocks_, ceil_div(128, block_size()));
  const int64_t slice = channels_ * block_size();
  const int64_t all = ceil_div(blocks_, pass_blocks_) * pass_blocks_;
  u_ = make_weights<A>(shape.groups * all * points * slice);
  bias_ = make_aligned<A>(shape.groups * all * block_size());
  // The lanes beyond the last channel stay zeros.
  if (channels_ > shape.channels || all > blocks_) {
    std::fill_n(u_.get(), shape.groups * all * points * slice, A(0));
  }
  std::fill_n(bias_.get(), shape.groups * all * block_size(), A(0));
  const std::vector<double> g = weight_transform(tile_);
  const auto taps = make_aligned<A>(shape.channels * tile_.taps * tile_.taps * block_size());
  const auto magnitudes = make_aligned<A>(points * block_size());
  A largest = 0;  // sum of the transformed weights' magnitudes that meet in one product
  double most_bias = 0;
  for (int64_t i = 0; i < shape.groups * blocks_; ++i) {
    const int64_t group = i / blocks_, b = i % blocks_;
    const int64_t exist = std::min(block_size(), out - b * block_size());
    const int64_t o = group * out + b * block_size();
    by_channel(shape, weight + o * shape.channels * tile_.taps * tile_.taps, exist, block_size(),
               taps.get());
    WinogradWeights<A> task{};
    task.vectors = vectors_;
    task.taps = taps.get();
    task.g = g.data();
    task.channels = shape.channels;
    task.u = u_.get() + (group * all + b / pass_blocks_ * pass_blocks_) * points * slice +
             b % pass_blocks_ * slice;
    task.point_step = pass_blocks_ * slice;
    task.magnitudes = magnitudes.get();
    loops_.weights(task);
    largest = std::max(
        largest, *std::max_element(magnitudes.get(), magnitudes.get() + points * block_size()));
    for (int64_t k = 0; bias && k < exist; ++k) {
      const A value = Accumulator<T>::widen(bias[o + k]);
      bias_[(group * all + b) * block_size() + k] = value + A(0);  // never -0.0
      most_bias = std::max(most_bias, std::abs(static_cast<double>(value)));
    }
  }
  // Half of what would be exact leaves room for rounding.
  const double room = (std::numeric_limits<A>::max() / 2.0 - most_bias) / largest_growth(tile_);
  // Weights beyond the type's range once transformed would turn zeros into NaN.
  const bool fits = largest < std::numeric_limits<A>::max();
  limit_ = fits && room > 0
               ? static_cast<A>(std::min<double>(std::numeric_limits<A>::max(),
                                                 room / std::max<double>(largest, 1.0)))
               : A(0);
}

// One call: strips of tiles, of a part of an image or of some images, each in three steps.
template <typename T>
class WinogradPack<T>::Run {
 public:
  Run(const WinogradPack& pack, const Call<T>& call, int width)
      : p_(pack),
        call_(call),
        g_(call.geometry),
        destination_(call, pack.lanes_, pack.narrow_),
        unsafe_(g_.n) {
    const int64_t out = p_.tile_.out;
    tiles_w_ = ceil_div(g_.conv.w, out);
    // Tiles in flight: v and a block's products in half of the cache where the
    // weights stay there, else as many as share one reading of the weights.
    const bool stay = p_.stays_;
    const int64_t values = p_.channels_ + (stay ? p_.block_size() : 0);
    const int64_t bytes = stay ? second_level_cache() / 2 : 4 << 20;
    const int64_t row_bytes = p_.tile_.points() * values * tiles_w_ * sizeof(A);
    // In pooled rows, the fewest that are whole tiles: others would be transformed
    // for two bands.
    const int64_t unit = out / std::gcd(out, g_.pool_stride.h);
    const int64_t units = ceil_div(g_.pooled.h, unit);
    const int64_t most = bytes / row_bytes * out / (g_.pool_stride.h * unit);
    bands_ = ceil_div(units, units_of_band(unit, units, std::clamp<int64_t>(most, 1, units)));
    // As many for each thread, where each can have the weights in its cache, or reads less
    // of them than of what other threads would transform for it.
    const int64_t even = width / std::gcd<int64_t>(width, g_.n * g_.groups);
    const bool light = p_.blocks_ * p_.block_size() < tiles_w_ * ceil_div(g_.conv.h, out);
    if ((stay || light) && even <= units) bands_ = std::min(units, ceil_div(bands_, even) * even);
    band_rows_ = ceil_div(units, bands_) * unit;
    bands_ = ceil_div(g_.pooled.h, band_rows_);
    tiles_h_most_ = ceil_div(conv_rows_of(band_rows_, g_) + out - 1, out);
    if (!stay && bands_ == 1) {
      // Weights from far away serve some small images at once, whose values at one
      // point the cache holds as long as blocks of output channels pass.
      const int64_t tiles = tiles_h_most_ * tiles_w_;
      const int64_t point_bytes = tiles * p_.channels_ * static_cast<int64_t>(sizeof(A));
      const int64_t fit = std::min(bytes / p_.tile_.points(), second_level_cache() / 2);
      const int64_t runs = ceil_div(g_.n, std::clamp<int64_t>(fit / point_bytes, 1, g_.n));
      images_ = ceil_div(g_.n, runs);
    }
    strips_ = ceil_div(g_.n, images_) * g_.groups * bands_;
    // Whole strips for each thread, or all threads in one strip after another, who
    // then wait for each other and read what the others transformed.
    const int64_t idle = ceil_div(strips_, width) * width - strips_;
    by_strips_ = width == 1 || idle == 0 || strips_ >= 4 * width || (stay && 3 * idle <= strips_);
  }

  std::vector<int64_t> run(const Parallel& parallel) {
    const Serial serial;
    if (by_strips_) {
      parallel.run(strips_, 1, [&](int64_t begin, int64_t end) { strips(begin, end, serial); });
    } else {
      strips(0, strips_, parallel);
    }
    std::vector<int64_t> refused;
    for (int64_t n = 0; n < g_.n; ++n) {
      if (unsafe_[n]) refused.push_back(n);
    }
    return refused;
  }

 private:
  struct Strip {
    int64_t n, images, group;  // first image and how many of them, group
    int64_t begin, end;        // pooled rows
    int64_t first_row;         // conv row of the first tile
    Pair tiles;                // of one image
    int64_t image_tiles() const { return tiles.h * tiles.w; }
    int64_t tile_count() const { return images * image_tiles(); }
  };

  Strip strip(int64_t number) const {
    const int64_t band = number % bands_, place = number / bands_;
    const int64_t begin = band * band_rows_;
    const int64_t end = std::min(g_.pooled.h, begin + band_rows_);
    const int64_t out = p_.tile_.out;
    // The grid of tiles begins at conv row 0 for every strip.
    const int64_t first = first_conv_row(begin, g_) / out * out;
    const int64_t last =
        std::min(g_.conv.h, (end - 1) * g_.pool_stride.h - g_.pool_padding.h + g_.pool_size.h);
    const int64_t n = place / g_.groups * images_;
    return {n,
            std::min(images_, g_.n - n),
            place % g_.groups,
            begin,
            end,
            first,
            {ceil_div(last - first, out), tiles_w_}};
  }

  // As many as fit into the cache, or more where windows of two bands share tiles, which are
  // transformed for both, and such tiles take longer than values from far away.
  int64_t units_of_band(int64_t unit, int64_t units, int64_t fit) const {
    const auto tile_rows = [&](int64_t count) {
      const int64_t rows = count * unit, out = p_.tile_.out;
      const int64_t last = std::min(g_.conv.h, first_conv_row(rows, g_) + conv_rows_of(rows, g_));
      return static_cast<double>(ceil_div(last, out) - first_conv_row(rows, g_) / out) /
             static_cast<double>(count);
    };
    constexpr double kFar = 1.3;  // measured
    int64_t best = fit;
    double least = tile_rows(fit);
    for (int64_t count = 2 * fit; count < units; count *= 2) {
      if (kFar * tile_rows(count) >= least) continue;
      best = count;
      least = kFar * tile_rows(count);
    }
    return best;
  }

  // Of v, with as many values a tile as input channels, and of m. One cache line
  // more than a power of two may be: the points of a tile are written or read at
  // once, and must not fall into the same sets of the cache.
  static int64_t point_step(const Strip& s, int64_t values) { return s.tile_count() * values + 16; }

  void strips(int64_t begin, int64_t end, const Parallel& parallel) {
    const Strip largest{0, images_, 0, 0, 0, 0, {tiles_h_most_, tiles_w_}};
    const auto v = make_scratch<A>(p_.tile_.points() * point_step(largest, p_.channels_));
    for (int64_t number = begin; number < end; ++number) {
      const Strip s = strip(number);
      if (s.images == 1 && unsafe_[s.n]) continue;  // refused for an earlier band
      const int64_t vectors = p_.channels_ / p_.lanes_;
      parallel.run(vectors, 1, [&](int64_t from, int64_t to) {
        for (int64_t i = 0; i < s.images; ++i) input(s, i, from, to, v.get());
      });
      parallel.run(p_.blocks_, 1, [&](int64_t from, int64_t to) { output(s, from, to, v.get()); });
    }
  }

  // Vectors of channels of image i of the strip.
  void input(const Strip& s, int64_t i, int64_t from, int64_t to, A* v) {
    const int64_t n = s.n + i;
    v += i * s.image_tiles() * p_.lanes_;
    const int64_t reach = p_.tile_.reach(), out = p_.tile_.out;
    const int64_t rows = (s.tiles.h - 1) * out + reach, columns = (s.tiles.w - 1) * out + reach;
    const auto scratch = make_scratch<A>(rows * columns * p_.lanes_);
    WinogradInput<A> task{};
    task.tiles = s.tiles;
    task.point_step = point_step(s, p_.channels_);
    task.channel_step = s.tile_count();
    task.scratch = scratch.get();
    const int64_t c = s.group * p_.shape_.channels;
    const auto transform = [&] {
      if (!(p_.loops_.input(task) < p_.limit_)) unsafe_[n] = true;
    };
    const Pair size{rows, columns};
    if constexpr (std::is_same_v<T, A>) {
      task.source = band_of(call_.input, g_, n, c, p_.shape_.channels, s.first_row, size);
      task.begin = from * p_.lanes_;
      task.end = to * p_.lanes_;
      task.v = v;
      transform();
    } else {
      // As dense copies in float32, with their padding, of a vector of channels at a time.
      const int64_t top = s.first_row - g_.padding.h;
      Geometry dense{};
      dense.image = size;
      const auto strip = conv2d::Strip::like(false, p_.lanes_, rows, columns);
      const auto copy = make_scratch<A>(strip.size);
      for (int64_t vector = from; vector < to; ++vector) {
        const int64_t first = vector * p_.lanes_;
        conv2d::Strip some = strip;
        some.channels = std::min(p_.lanes_, p_.shape_.channels - first);
        copy_strip(some, call_.input, g_.image, n, c + first, top, -g_.padding.w, copy.get());
        const View<const A> view = nchw<const A>(copy.get(), p_.lanes_, size);
        task.source = band_of(view, dense, 0, 0, some.channels, 0, size);
        task.begin = 0;
        task.end = p_.lanes_;
        task.v = v + first * s.tile_count();
        transform();
      }
    }
  }

  // Multiplies and finishes some blocks of output channels.
  void output(const Strip& s, int64_t from, int64_t to, const A* v) const {
    const int64_t points = p_.tile_.points(), slice = p_.channels_ * p_.block_size();
    const int64_t all = ceil_div(p_.blocks_, p_.pass_blocks_) * p_.pass_blocks_;
    const int64_t m_size = points * point_step(s, p_.block_size());
    const auto m = make_scratch<A>(std::min(to - from, p_.pass_blocks_) * m_size);
    WinogradOutput<A> back{};
    back.vectors = p_.vectors_;
    back.m_point_step = point_step(s, p_.block_size());
    back.tiles = s.tiles;
    back.first_row = s.first_row;
    back.pool = pool_of(g_);
    back.pool.begin = s.begin;
    back.pool.end = s.end;
    const int64_t out = p_.tile_.out;
    const int64_t rows = s.tiles.h * out * row_scratch(back.pool, s.tiles.w * out, p_.block_size());
    const int64_t scratch_size = rows + pooling_ring(back.pool, p_.block_size()) +
                                 pooling_scratch(back.pool, p_.block_size());
    const auto memory = make_scratch<A>(ceil_div(scratch_size, 16) * 16 +
                                        destination_.buffer_size(p_.block_size(), band_rows_));
    back.scratch = memory.get();
    A* const buffer = memory.get() + ceil_div(scratch_size, 16) * 16;
    WinogradProduct<A> product{};
    product.vectors = p_.vectors_;
    product.v = v;
    product.v_point_step = point_step(s, p_.channels_);
    product.tiles = s.tile_count();
    product.channels = p_.channels_;
    product.m = m.get();
    product.m_point_step = point_step(s, p_.block_size());
    product.points = points;
    product.prefetch = !p_.stays_;
    for (int64_t first = from, last; first < to; first = last) {
      const int64_t pass = first / p_.pass_blocks_ * p_.pass_blocks_;
      last = std::min(to, pass + p_.pass_blocks_);
      product.u = p_.u_.get() + (s.group * all + pass) * points * slice + (first - pass) * slice;
      product.blocks = last - first;
      product.u_point_step = p_.pass_blocks_ * slice;
      p_.loops_.product(product);
      for (int64_t b = first; b < last; ++b) {
        back.bias = p_.bias_.get() + (s.group * all + b) * p_.block_size();
        const int64_t channels = p_.shape_.c_out / p_.shape_.groups;
        for (int64_t k = 0; k < s.images; ++k) {
          back.m = m.get() + (b - first) * m_size + k * s.image_tiles() * p_.block_size();
          destination_.run(back, s.n + k, s.group * channels + b * p_.block_size(),
                           std::min(p_.block_size(), channels - b * p_.block_size()), buffer,
                           p_.loops_.output);
        }
      }
    }
  }

  const WinogradPack& p_;
  const Call<T>& call_;
  const Geometry& g_;
  Destination<T> destination_;
  std::vector<std::atomic<bool>> unsafe_;
  int64_t tiles_w_;
  int64_t tiles_h_most_;
  int64_t band_rows_;
  int64_t bands_;
  int64_t images_ = 1;  // in a strip
  int64_t strips_;
  bool by_strips_;
};

template <typename T>
std::vector<int64_t> WinogradPack<T>::run(const Call<T>& call, const Parallel& parallel) const {
  const Geometry& g = call.geometry;
  if (g.dilation.h == 1 && g.dilation.w == 1) {
    return Run(*this, call, parallel.width()).run(parallel);
  }
  const auto every = [&](auto view, Pair first) {
    if (!view.data) return view;
    view.data += first.h * view.h_step + first.w * view.w_step;
    view.h_step *= g.dilation.h;
    view.w_step *= g.dilation.w;
    return view;
  };
  std::vector<int64_t> refused;
  for (int64_t h = 0; h < g.dilation.h; ++h) {
    for (int64_t w = 0; w < g.dilation.w; ++w) {
      const Pair at{h, w};
      const DilationPhase phase = dilation_phase(g, at);
      const Call<T> part{
          phase.geometry,         call.activation,          every(call.input, phase.input),
          every(call.output, at), every(call.residual, at), call.index};
      for (const int64_t n : Run(*this, part, parallel.width()).run(parallel)) {
        if (std::find(refused.begin(), refused.end(), n) == refused.end()) refused.push_back(n);
      }
    }
  }
  return refused;
}

template class WinogradPack<float>;
template class WinogradPack<BFloat16>;

}  // namespace convship::kernels::conv2d
