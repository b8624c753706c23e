#include "kernels/conv2d/plain.h"

#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>

#include "kernels/conv2d/activation.h"

namespace convship::kernels::conv2d {
namespace {

// Output channels that share one load of the input. With 8 columns of float a
// tile is 8 accumulators of 128 bits: enough independent sums to hide the
// latency of an addition, and still inside the 16 registers of x86-64.
constexpr int kOutputs = 4;
constexpr int kTile = 8;
constexpr int kHalfTile = 4;

// One register. Vector types, because the compiler does not keep plain arrays
// in registers across the loops over taps.
template <typename T>
using Lanes __attribute__((vector_size(16))) = T;
template <typename T>
constexpr int kLanes = sizeof(Lanes<T>) / sizeof(T);

// One register each: a memcpy of several would keep them in memory.
template <typename T>
Lanes<T> load(const T* from) {
  Lanes<T> lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

template <typename T>
void store(T* to, Lanes<T> lanes) {
  std::memcpy(to, &lanes, sizeof lanes);
}

// Below this many operations a second thread costs more than it brings.
constexpr int64_t kOperationsPerThread = 400'000;

// Conv rows of one block of output channels over one image.
template <typename T, int kChannels>
class ConvRows {
 public:
  ConvRows(const Geometry& geometry, const T* image, const T* weight, const T* bias)
      : g_(geometry),
        image_(image),
        weight_(weight),
        plane_(geometry.image.h * geometry.image.w),
        channels_(geometry.c_in / geometry.groups),
        weight_step_(channels_ * geometry.kernel.h * geometry.kernel.w) {
    for (int o = 0; o < kChannels; ++o) bias_[o] = (bias ? bias[o] : T(0)) + T(0);
    // Columns for which no tap falls into the padding.
    const int64_t last = (g_.kernel.w - 1) * g_.dilation.w - g_.padding.w;
    inner_.begin = tap_columns(0).begin;
    inner_.end = sources_inside(last, g_.stride.w, g_.image.w, g_.conv.w).end;
    if (g_.stride.w != 1 || inner_.end - inner_.begin < kHalfTile) inner_ = {0, 0};
  }

  // Row r of channel o goes to rows + o * channel_step.
  void compute(int64_t r, T* rows, int64_t channel_step) const {
    const int64_t top = r * g_.stride.h - g_.padding.h;
    const Range taps = sources_inside(top, g_.dilation.h, g_.image.h, g_.kernel.h);
    for (int o = 0; o < kChannels; ++o) {
      edge(o, top, taps, {0, inner_.begin}, rows + o * channel_step);
      edge(o, top, taps, {inner_.end, g_.conv.w}, rows + o * channel_step);
    }
    // A last tile moves left until it fits: some columns are computed twice,
    // with the same result.
    for (int64_t q = inner_.begin; q < inner_.end;) {
      if (inner_.end - q > kHalfTile && inner_.end - inner_.begin >= kTile) {
        tile<kTile>(top, taps, std::min(q, inner_.end - kTile), rows, channel_step);
        q += kTile;
      } else {
        tile<kHalfTile>(top, taps, std::min(q, inner_.end - kHalfTile), rows, channel_step);
        q += kHalfTile;
      }
    }
  }

 private:
  Range tap_columns(int64_t j) const {
    return sources_inside(j * g_.dilation.w - g_.padding.w, g_.stride.w, g_.image.w, g_.conv.w);
  }

  const T* input_row(int64_t c, int64_t y) const { return image_ + c * plane_ + y * g_.image.w; }

  // kColumns columns from q on, where every tap is inside and stride.w is 1.
  template <int kColumns>
  void tile(int64_t top, Range taps, int64_t q, T* rows, int64_t channel_step) const {
    constexpr int kVectors = kColumns / kLanes<T>;
    Lanes<T> sum[kChannels][kVectors];
    for (int o = 0; o < kChannels; ++o) {
      for (int v = 0; v < kVectors; ++v) sum[o][v] = bias_[o] - Lanes<T>{};
    }
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t i = taps.begin; i < taps.end; ++i) {
        const T* x = input_row(c, top + i * g_.dilation.h) + q - g_.padding.w;
        const T* w = weight_ + (c * g_.kernel.h + i) * g_.kernel.w;
        for (int64_t j = 0; j < g_.kernel.w; ++j) {
          Lanes<T> source[kVectors];
          for (int v = 0; v < kVectors; ++v) {
            source[v] = load(x + j * g_.dilation.w + v * kLanes<T>);
          }
          for (int o = 0; o < kChannels; ++o) {
            const T factor = w[o * weight_step_ + j];
            for (int v = 0; v < kVectors; ++v) sum[o][v] += factor * source[v];
          }
        }
      }
    }
    for (int o = 0; o < kChannels; ++o) {
      for (int v = 0; v < kVectors; ++v) {
        store<T>(rows + o * channel_step + q + v * kLanes<T>, sum[o][v]);
      }
    }
  }

  // Any columns of channel o, tap by tap.
  void edge(int o, int64_t top, Range taps, Range columns, T* row) const {
    if (columns.begin >= columns.end) return;
    std::fill(row + columns.begin, row + columns.end, bias_[o]);
    const int64_t stride = g_.stride.w;
    const T* w = weight_ + o * weight_step_;
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t i = taps.begin; i < taps.end; ++i) {
        const T* x = input_row(c, top + i * g_.dilation.h);
        const T* w_row = w + (c * g_.kernel.h + i) * g_.kernel.w;
        for (int64_t j = 0; j < g_.kernel.w; ++j) {
          const Range inside = tap_columns(j);
          const int64_t begin = std::max(inside.begin, columns.begin);
          const int64_t end = std::min(inside.end, columns.end);
          const int64_t offset = j * g_.dilation.w - g_.padding.w;
          for (int64_t q = begin; q < end; ++q) row[q] += w_row[j] * x[q * stride + offset];
        }
      }
    }
  }

  const Geometry& g_;
  const T* image_;
  const T* weight_;
  int64_t plane_;
  int64_t channels_;
  int64_t weight_step_;
  T bias_[kChannels];
  Range inner_;
};

template <typename T>
void relu(T* row, int64_t count) {
  for (int64_t q = 0; q < count; ++q) row[q] = activate(Activation::relu, row[q]);
}

// Pooled row p from the conv rows of its window; row r lies in slot r % slots.
template <typename T, typename Index, bool kWithIndex>
void pool_row(const Geometry& g, const T* ring, int64_t slots, int64_t p, T* output, Index* index) {
  const int64_t top = p * g.pool_stride.h - g.pool_padding.h;
  const Range taps = sources_inside(top, 1, g.conv.h, g.pool_size.h);
  for (int64_t q = 0; q < g.pooled.w; ++q) {
    const int64_t left = q * g.pool_stride.w - g.pool_padding.w;
    const int64_t begin = std::max<int64_t>(0, left);
    const int64_t end = std::min(left + g.pool_size.w, g.conv.w);
    T best = -std::numeric_limits<T>::infinity();
    int64_t winner = taps.begin * g.pool_size.w + begin - left;
    for (int64_t i = taps.begin; i < taps.end; ++i) {
      const T* row = ring + (top + i) % slots * g.conv.w;
      for (int64_t column = begin; column < end; ++column) {
        const T value = row[column];
        // Not a branch: which tap wins cannot be predicted.
        const bool wins = (value > best) | (value != value);
        best = wins ? value : best;
        if constexpr (kWithIndex) winner = wins ? i * g.pool_size.w + column - left : winner;
      }
    }
    output[q] = best;
    if constexpr (kWithIndex) index[q] = static_cast<Index>(winner);
  }
}

// All pooled rows of kChannels output channels of one image.
template <typename T, typename Index, int kChannels>
void channel_block(const Geometry& g,
                   Activation activation,
                   const ConvRows<T, kChannels>& conv,
                   T* ring,
                   int64_t slots,
                   T* output,
                   Index* index) {
  const int64_t ring_step = slots * g.conv.w;
  const int64_t plane = g.pooled.h * g.pooled.w;
  int64_t next = 0;
  for (int64_t p = 0; p < g.pooled.h; ++p) {
    const int64_t top = p * g.pool_stride.h - g.pool_padding.h;
    const int64_t bottom = std::min(top + g.pool_size.h, g.conv.h);
    for (next = std::max({next, top, int64_t{0}}); next < bottom; ++next) {
      T* rows = ring + next % slots * g.conv.w;
      conv.compute(next, rows, ring_step);
      if (activation == Activation::relu) {
        for (int o = 0; o < kChannels; ++o) relu(rows + o * ring_step, g.conv.w);
      }
    }
    for (int o = 0; o < kChannels; ++o) {
      const int64_t at = o * plane + p * g.pooled.w;
      const T* rows = ring + o * ring_step;
      if (index) {
        pool_row<T, Index, true>(g, rows, slots, p, output + at, index + at);
      } else {
        pool_row<T, Index, false>(g, rows, slots, p, output + at, nullptr);
      }
    }
  }
}

}  // namespace

template <typename T, typename Index>
void conv_pool2d_plain(const Geometry& g,
                       Activation activation,
                       const T* input,
                       const T* weight,
                       const T* bias,
                       T* output,
                       Index* index,
                       const Parallel& parallel) {
  const int64_t channels_in = g.c_in / g.groups;
  const int64_t channels_out = g.c_out / g.groups;
  const int64_t blocks = (channels_out + kOutputs - 1) / kOutputs;
  // Blocks of equal size: 6 channels are 3 and 3, since a block of 2 has too
  // few independent sums.
  const int64_t block = (channels_out + blocks - 1) / blocks;
  const int64_t image = g.c_in * g.image.h * g.image.w;
  const int64_t weight_step = channels_in * g.kernel.h * g.kernel.w;
  const int64_t plane = g.pooled.h * g.pooled.w;
  // Rows of one window are alive at once: row r + slots may overwrite row r.
  const int64_t slots = std::min(g.pool_size.h, g.conv.h);

  const auto item = [&](int64_t number, T* ring) {
    const int64_t n = number / (g.groups * blocks);
    const int64_t group = number / blocks % g.groups;
    const int64_t o = group * channels_out + number % blocks * block;
    const T* x = input + n * image + group * channels_in * g.image.h * g.image.w;
    const int64_t at = (n * g.c_out + o) * plane;
    const auto run = [&]<int kChannels>(std::integral_constant<int, kChannels>) {
      const ConvRows<T, kChannels> conv(g, x, weight + o * weight_step, bias ? bias + o : nullptr);
      channel_block(g, activation, conv, ring, slots, output + at, index ? index + at : nullptr);
    };
    switch (std::min(block, (group + 1) * channels_out - o)) {
      case 1:
        return run(std::integral_constant<int, 1>{});
      case 2:
        return run(std::integral_constant<int, 2>{});
      case 3:
        return run(std::integral_constant<int, 3>{});
      default:
        return run(std::integral_constant<int, kOutputs>{});
    }
  };

  // In floating point: an estimate must not overflow.
  const double operations =
      2.0 * static_cast<double>(weight_step) * kOutputs * static_cast<double>(g.conv.h * g.conv.w);
  const int64_t grain = operations < kOperationsPerThread
                            ? static_cast<int64_t>(kOperationsPerThread / (operations + 1))
                            : 1;
  parallel.run(g.n * g.groups * blocks, std::max<int64_t>(1, grain),
               [&](int64_t begin, int64_t end) {
                 const auto ring = std::make_unique_for_overwrite<T[]>(block * slots * g.conv.w);
                 for (int64_t number = begin; number < end; ++number) item(number, ring.get());
               });
}

#define CONVSHIP_INSTANTIATE(T, Index)                                                           \
  template void conv_pool2d_plain(const Geometry&, Activation, const T*, const T*, const T*, T*, \
                                  Index*, const Parallel&);
CONVSHIP_INSTANTIATE(float, uint8_t)
CONVSHIP_INSTANTIATE(float, int32_t)
CONVSHIP_INSTANTIATE(double, uint8_t)
CONVSHIP_INSTANTIATE(double, int32_t)
#undef CONVSHIP_INSTANTIATE

}  // namespace convship::kernels::conv2d
