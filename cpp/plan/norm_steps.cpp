// Steps over the channels of each pixel, and over groups of channels of an image.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/layers/tasks.h"
#include "plan/steps.h"

namespace convship::plan {

using kernels::MapTask;
using kernels::conv2d::kChannelBlock;

namespace {

// visit(n, pixel, count) for some neighbouring pixels at a time, which need no others.
template <typename Visit>
void for_pixels(const Frame& frame, const Size& size, int64_t operations, const Visit& visit) {
  // Enough for a thread, and few enough for the first level of the cache.
  constexpr int64_t kPixels = 16;
  const int64_t parts = (size.pixels() + kPixels - 1) / kPixels;
  frame.parallel.run(size.n * parts, grain(kPixels * operations), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t pixel = i % parts * kPixels;
      visit(i / parts, pixel, std::min(kPixels, size.pixels() - pixel));
    }
  });
}

}  // namespace

Step normalize_step(const Normalize& layer, const Operand& x, const Operand& y) {
  const auto run = [scale = padded(*layer.scale), shift = padded(*layer.shift),
                    epsilon = layer.epsilon, x, y](const Frame& frame) {
    for_pixels(frame, y.size, y.size.c * 4, [&](int64_t n, int64_t pixel, int64_t count) {
      kernels::NormalizeTask task{};
      task.x = x.pixel(frame, n, pixel);
      task.x_block = x.block_step();
      task.scale = scale.data();
      task.shift = shift.data();
      task.y = y.pixel(frame, n, pixel);
      task.y_block = y.block_step();
      task.channels = y.size.c;
      task.pixels = count;
      task.epsilon = epsilon;
      frame.isa.layers.normalize(task);
    });
  };
  return {"layer norm, " + describe(y.size), run};
}

Step softmax_step(const Softmax& layer, const Operand& x, const Operand& y) {
  return {"softmax, " + describe(y.size), [layer, x, y](const Frame& frame) {
            for_pixels(frame, y.size, y.size.c * 16, [&](int64_t n, int64_t pixel, int64_t count) {
              kernels::SoftmaxTask task{};
              task.x = x.pixel(frame, n, pixel);
              task.x_block = x.block_step();
              task.y = y.pixel(frame, n, pixel);
              task.y_block = y.block_step();
              task.channels = y.size.c;
              task.pixels = count;
              task.logarithm = layer.logarithm;
              frame.isa.layers.softmax(task);
            });
          }};
}

Step across_step(const AcrossChannels& layer, const Operand& x, const Operand& y) {
  kernels::AcrossTask base{};
  base.x_block = x.block_step();
  base.channels = x.size.c;
  base.maximum = layer.reduction == Reduction::maximum;
  base.divisor = layer.reduction == Reduction::mean ? static_cast<float>(x.size.c) : 1;
  constexpr std::array kNames = {"mean", "maximum", "sum"};
  return {std::string(kNames[static_cast<std::size_t>(layer.reduction)]) + " of channels, " +
              describe(x.size),
          [base, x, y](const Frame& frame) {
            for_pixels(frame, x.size, x.size.c, [&](int64_t n, int64_t pixel, int64_t count) {
              kernels::AcrossTask task = base;
              task.x = x.pixel(frame, n, pixel);
              task.y = y.pixel(frame, n, pixel);
              task.pixels = count;
              frame.isa.layers.across(task);
            });
          }};
}

namespace {

// Mean and squared distances from it of more and more numbers (Chan, Golub and LeVeque,
// Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979).
struct Moments {
  double count = 0, mean = 0, squares = 0;

  void add(double other_count, double sum, double other_squares) {
    const double all = count + other_count, distance = sum / other_count - mean;
    squares += other_squares + distance * distance * count * other_count / all;
    mean += distance * other_count / all;
    count = all;
  }
};

// Of the 16 channels of a block; channel c counts to moments[(first + c) / size].
void add_moments(const Frame& frame,
                 const float* x,
                 int64_t pixels,
                 int64_t channels,
                 int64_t first,
                 int64_t size,
                 Moments* moments) {
  // Few enough for the first level of the cache, which reads them twice, and for sums
  // of floats.
  constexpr int64_t kPixels = 256;
  float sum[kChannelBlock], squares[kChannelBlock];
  for (int64_t pixel = 0; pixel < pixels; pixel += kPixels) {
    const int64_t count = std::min(kPixels, pixels - pixel);
    frame.isa.layers.moments({x + pixel * kChannelBlock, count, sum, squares});
    for (int64_t c = 0; c < channels; ++c) {
      moments[(first + c) / size].add(static_cast<double>(count), sum[c], squares[c]);
    }
  }
}

}  // namespace

Step group_norm_step(const GroupNorm& layer,
                     const Operand& x,
                     const Operand* residual,
                     const Operand& y) {
  const int64_t size = y.size.c / layer.groups;
  // Blocks of channels that are whole groups, and how many such there are.
  const int64_t unit = std::lcm(size, kChannelBlock) / kChannelBlock;
  const int64_t units = (y.blocks() + unit - 1) / unit;
  const auto run = [scale = *layer.scale, shift = *layer.shift, epsilon = layer.epsilon,
                    activation = layer.activation, size, unit, units, x, y,
                    sums = residual != nullptr, also = residual ? *residual : Operand{}](
                       const Frame& frame, int64_t n, int64_t number) {
    const int64_t begin = number * unit, end = std::min(y.blocks(), begin + unit);
    const auto exist = [&](int64_t block) {
      return std::min(kChannelBlock, y.size.c - block * kChannelBlock);
    };
    Moments moments[kChannelBlock];  // as many groups as a unit has at most
    for (int64_t block = begin; block < end; ++block) {
      add_moments(frame, x.block(frame, n, block), x.size.pixels(), exist(block),
                  (block - begin) * kChannelBlock, size, moments);
    }
    for (int64_t block = begin; block < end; ++block) {
      float factor[kChannelBlock] = {}, term[kChannelBlock] = {};
      for (int64_t c = 0; c < exist(block); ++c) {
        const int64_t channel = block * kChannelBlock + c;
        const Moments& m = moments[(channel - begin * kChannelBlock) / size];
        const double normal = scale[channel] / std::sqrt(m.squares / m.count + epsilon);
        factor[c] = static_cast<float>(normal);
        term[c] = static_cast<float>(shift[channel] - m.mean * normal);
      }
      MapTask task{};
      task.a = x.block(frame, n, block);
      task.b = sums ? also.block(frame, n, block) : nullptr;
      task.scale = factor;
      task.shift = term;
      task.y = y.block(frame, n, block);
      task.pixels = y.size.pixels();
      task.activation = activation;
      frame.isa.layers.map(task);
    }
  };
  return {"group norm, " + describe(y.size), [run, unit, units, y](const Frame& frame) {
            frame.parallel.run(y.size.n * units, grain(4 * unit * y.block_step()),
                               [&](int64_t begin, int64_t end) {
                                 for (int64_t i = begin; i < end; ++i) {
                                   run(frame, i / units, i % units);
                                 }
                               });
          }};
}

}  // namespace convship::plan
