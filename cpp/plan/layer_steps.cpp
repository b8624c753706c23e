// Steps over the loops of kernels/layers.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <vector>

#include "kernels/layers/tasks.h"
#include "plan/steps.h"

namespace convship::plan {
namespace {

using kernels::MapTask;
using kernels::PoolTask;
using kernels::Window;
using kernels::conv2d::kChannelBlock;

// visit(n, block) for every block of 16 channels of every image.
template <typename Visit>
void for_blocks(const Frame& frame, const Operand& y, int64_t operations, const Visit& visit) {
  const int64_t blocks = y.blocks();
  frame.parallel.run(y.size.n * blocks, grain(operations), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) visit(i / blocks, i % blocks);
  });
}

float* block_of(const Frame& frame, const Operand& x, int64_t n, int64_t block) {
  return x.data(frame) + n * x.place.n_step + block * x.block_step();
}

std::vector<Window> windows(int64_t out,
                            int64_t extent,
                            int64_t size,
                            int64_t stride,
                            int64_t padding,
                            bool count_padding) {
  std::vector<Window> list(out);
  for (int64_t i = 0; i < out; ++i) {
    const int64_t begin = i * stride - padding;
    // As in torch, what lies beyond the padding never counts.
    const int64_t padded_end = std::min(begin + size, extent + padding);
    const int64_t end = std::min(begin + size, extent);
    const int64_t inside = std::max<int64_t>(0, begin);
    list[i] = {inside, end, count_padding ? padded_end - begin : end - inside};
  }
  return list;
}

std::vector<Window> adaptive_windows(int64_t out, int64_t extent) {
  std::vector<Window> list(out);
  for (int64_t i = 0; i < out; ++i) {
    const int64_t begin = i * extent / out, end = ((i + 1) * extent + out - 1) / out;
    list[i] = {begin, end, end - begin};
  }
  return list;
}

Step pool_step(std::string name,
               const Operand& x,
               const Operand& y,
               std::vector<Window> rows,
               std::vector<Window> columns,
               bool average) {
  name += ", " + describe(x.size) + " to " + describe(y.size);
  return {std::move(name), [x, y, rows = std::move(rows), columns = std::move(columns),
                            average](const Frame& frame) {
            const int64_t bands = std::clamp<int64_t>(
                2 * frame.parallel.width() / (x.size.n * x.blocks()), 1, y.size.image.h);
            const int64_t band = (y.size.image.h + bands - 1) / bands;
            const int64_t blocks = y.blocks();
            const int64_t operations = x.block_step() / bands;
            frame.parallel.run(
                y.size.n * blocks * bands, grain(operations), [&](int64_t begin, int64_t end) {
                  for (int64_t i = begin; i < end; ++i) {
                    const int64_t place = i / bands, n = place / blocks, block = place % blocks;
                    PoolTask task{};
                    task.x = block_of(frame, x, n, block);
                    task.x_row = x.size.image.w * kChannelBlock;
                    task.y = block_of(frame, y, n, block);
                    task.y_row = y.size.image.w * kChannelBlock;
                    task.rows = rows.data();
                    task.columns = columns.data();
                    task.begin = i % bands * band;
                    task.end = std::min(y.size.image.h, task.begin + band);
                    task.width = y.size.image.w;
                    task.average = average;
                    frame.isa.layers.pool(task);
                  }
                });
          }};
}

template <typename Fill>
Step map_step(std::string name, const Operand& a, const Operand& y, Fill fill) {
  name += ", " + describe(y.size);
  return {std::move(name), [a, y, fill](const Frame& frame) {
            for_blocks(frame, y, y.block_step(), [&](int64_t n, int64_t block) {
              MapTask task{};
              task.a = block_of(frame, a, n, block);
              task.y = block_of(frame, y, n, block);
              task.pixels = y.size.pixels();
              fill(frame, n, block, task);
              frame.isa.layers.map(task);
            });
          }};
}

// By channel, whole blocks of them.
std::vector<float> padded(const std::vector<float>& values) {
  std::vector<float> result((values.size() + kChannelBlock - 1) / kChannelBlock * kChannelBlock);
  std::copy(values.begin(), values.end(), result.begin());
  return result;
}

}  // namespace

Step linear_step(const Linear& layer, const Operand& x, const Operand& y) {
  return {"linear, " + describe(x.size) + " to " + describe(y.size),
          [layer, x, y](const Frame& frame) {
            kernels::LinearTask base{};
            base.x = x.data(frame);
            base.x_step = x.place.n_step;
            base.weight = layer.weight;
            std::vector<float> rounded;
            if (layer.rounded) {
              layer.rounded->fill(base);
              for (int64_t n = 0; n < x.size.n; ++n) {
                const float* row = base.x + n * base.x_step;
                std::transform(row, row + layer.in, std::back_inserter(rounded),
                               [&](float value) { return layer.rounded->input(value); });
              }
              base.x = rounded.data();
              base.x_step = layer.in;
            }
            base.bias = layer.bias;
            const bool out = y.place.where == Place::Where::output;
            base.y = out ? frame.outputs[y.place.offset] : y.data(frame);
            base.y_step = out ? layer.out : y.place.n_step;
            base.features = layer.in;
            base.images = x.size.n;
            base.activation = layer.activation;
            // Rows that the loop takes together.
            constexpr int64_t kRows = 8;
            const int64_t groups = (layer.out + kRows - 1) / kRows;
            frame.parallel.run(groups, grain(kRows * layer.in * std::max<int64_t>(1, x.size.n)),
                               [&](int64_t begin, int64_t end) {
                                 kernels::LinearTask task = base;
                                 task.begin = begin * kRows;
                                 task.end = std::min(layer.out, end * kRows);
                                 frame.isa.layers.linear(task);
                               });
          }};
}

Step max_pool_step(const MaxPool& layer, const Operand& x, const Operand& y) {
  const Windows& w = layer.windows;
  const Pair in = x.size.image, out = y.size.image;
  return pool_step("max pool", x, y, windows(out.h, in.h, w.size.h, w.stride.h, w.padding.h, false),
                   windows(out.w, in.w, w.size.w, w.stride.w, w.padding.w, false), false);
}

Step average_pool_step(const AveragePool& layer, const Operand& x, const Operand& y) {
  const Windows& w = layer.windows;
  const Pair in = x.size.image, out = y.size.image;
  return pool_step("average pool", x, y,
                   windows(out.h, in.h, w.size.h, w.stride.h, w.padding.h, layer.count_padding),
                   windows(out.w, in.w, w.size.w, w.stride.w, w.padding.w, layer.count_padding),
                   true);
}

Step adaptive_average_step(const AdaptiveAverage& layer, const Operand& x, const Operand& y) {
  return pool_step("adaptive average pool", x, y, adaptive_windows(layer.size.h, x.size.image.h),
                   adaptive_windows(layer.size.w, x.size.image.w), true);
}

Step activate_step(const Activate& layer, const Operand& x, const Operand& y) {
  return map_step("activation", x, y,
                  [activation = layer.activation](const Frame&, int64_t, int64_t, MapTask& task) {
                    task.activation = activation;
                  });
}

Step round_step(const Round& layer, const Operand& x, const Operand& y) {
  return {"round, " + describe(y.size), [layer, x, y](const Frame& frame) {
            for_blocks(frame, y, y.block_step(), [&](int64_t n, int64_t block) {
              const float* from = block_of(frame, x, n, block);
              std::transform(from, from + y.block_step(), block_of(frame, y, n, block),
                             layer.rounding);
            });
          }};
}

Step add_step(const Add& layer, const Operand& a, const Operand& b, const Operand& y) {
  return map_step("add", a, y,
                  [b, activation = layer.activation](const Frame& frame, int64_t n, int64_t block,
                                                     MapTask& task) {
                    task.b = block_of(frame, b, n, block);
                    task.activation = activation;
                  });
}

Step multiply_step(const Operand& a, const Operand& b, const Operand& y) {
  const bool by_channel = b.size.pixels() == 1 && a.size.pixels() > 1;
  return map_step("multiply", a, y,
                  [b, by_channel](const Frame& frame, int64_t n, int64_t block, MapTask& task) {
                    const float* factor = block_of(frame, b, n, block);
                    (by_channel ? task.scale : task.b) = factor;
                    task.multiply = !by_channel;
                  });
}

Step affine_step(const Affine& layer, const Operand& x, const Operand* residual, const Operand& y) {
  return map_step(
      "affine", x, y,
      [scale = padded(*layer.scale), shift = padded(*layer.shift), activation = layer.activation,
       sums = residual != nullptr, also = residual ? *residual : Operand{}](
          const Frame& frame, int64_t n, int64_t block, MapTask& task) {
        task.scale = scale.data() + block * kChannelBlock;
        task.shift = shift.data() + block * kChannelBlock;
        if (sums) task.b = block_of(frame, also, n, block);
        task.activation = activation;
      });
}

Step normalize_step(const Normalize& layer, const Operand& x, const Operand& y) {
  return {"layer norm, " + describe(y.size),
          [scale = padded(*layer.scale), shift = padded(*layer.shift), epsilon = layer.epsilon, x,
           y](const Frame& frame) {
            // Enough for a thread, and few enough for the first level of the cache.
            constexpr int64_t kPixels = 16;
            const int64_t pixels = y.size.pixels();
            const int64_t parts = (pixels + kPixels - 1) / kPixels;
            frame.parallel.run(y.size.n * parts, grain(kPixels * y.size.c * 4),
                               [&](int64_t begin, int64_t end) {
                                 for (int64_t i = begin; i < end; ++i) {
                                   const int64_t n = i / parts, pixel = i % parts * kPixels;
                                   kernels::NormalizeTask task{};
                                   task.x = block_of(frame, x, n, 0) + pixel * kChannelBlock;
                                   task.x_block = x.block_step();
                                   task.scale = scale.data();
                                   task.shift = shift.data();
                                   task.y = block_of(frame, y, n, 0) + pixel * kChannelBlock;
                                   task.y_block = y.block_step();
                                   task.channels = y.size.c;
                                   task.pixels = std::min(kPixels, pixels - pixel);
                                   task.epsilon = epsilon;
                                   frame.isa.layers.normalize(task);
                                 }
                               });
          }};
}

Step slope_step(const Slope& layer, const Operand& x, const Operand& y) {
  return map_step(
      "prelu", x, y,
      [slope = padded(*layer.slope)](const Frame&, int64_t, int64_t block, MapTask& task) {
        task.slope = slope.data() + block * kChannelBlock;
      });
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
      add_moments(frame, block_of(frame, x, n, block), x.size.pixels(), exist(block),
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
      task.a = block_of(frame, x, n, block);
      task.b = sums ? block_of(frame, also, n, block) : nullptr;
      task.scale = factor;
      task.shift = term;
      task.y = block_of(frame, y, n, block);
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

// A few numbers behind a whole network, so plain loops. Relative to the largest no
// exponential overflows; NaN and +inf make all of a row NaN, as in torch.
Step softmax_step(const Softmax& layer, const Operand& x, const Operand& y) {
  return {"softmax, " + describe(y.size), [layer, x, y](const Frame& frame) {
            for (int64_t n = 0; n < y.size.n; ++n) {
              const float* from = block_of(frame, x, n, 0);
              float* to = block_of(frame, y, n, 0);
              const float most = *std::max_element(from, from + y.size.c);
              double sum = 0;
              for (int64_t i = 0; i < y.size.c; ++i) sum += std::exp(from[i] - most);
              const auto share = static_cast<float>(1 / sum);
              const auto logarithm = static_cast<float>(std::log(sum));
              for (int64_t i = 0; i < y.size.c; ++i) {
                const float difference = from[i] - most;
                to[i] = layer.logarithm ? difference - logarithm : std::exp(difference) * share;
              }
            }
          }};
}

}  // namespace convship::plan
