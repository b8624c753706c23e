// Steps over the loops of kernels/layers.
#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
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
                    task.x = x.block(frame, n, block);
                    task.x_row = x.size.image.w * kChannelBlock;
                    task.y = y.block(frame, n, block);
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
              task.a = a.block(frame, n, block);
              task.y = y.block(frame, n, block);
              task.pixels = y.size.pixels();
              fill(frame, n, block, task);
              frame.isa.layers.map(task);
            });
          }};
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
            const kernels::conv2d::View<float> to = y.view(frame);
            base.y = to.data;
            base.y_step = to.n_step;
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

Step adaptive_pool_step(const AdaptivePool& layer, const Operand& x, const Operand& y) {
  auto rows = adaptive_windows(y.size.image.h, x.size.image.h);
  auto columns = adaptive_windows(y.size.image.w, x.size.image.w);
  if (layer.reduction == Reduction::sum) {
    for (auto* windows : {&rows, &columns}) {
      for (Window& window : *windows) window.count = 1;
    }
  }
  constexpr std::array kNames = {"adaptive average pool", "adaptive max pool", "adaptive sum pool"};
  return pool_step(kNames[static_cast<std::size_t>(layer.reduction)], x, y, std::move(rows),
                   std::move(columns), layer.reduction != Reduction::maximum);
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
              const float* from = x.block(frame, n, block);
              std::transform(from, from + y.block_step(), y.block(frame, n, block), layer.rounding);
            });
          }};
}

namespace {

using How = kernels::CombineTask::How;

std::string name_of(How how) {
  constexpr std::array kNames = {"add", "subtract", "multiply", "divide", "maximum", "minimum"};
  return kNames[static_cast<std::size_t>(how)];
}

Step broadcast_step(
    How how, Activation activation, const Operand& a, const Operand& b, const Operand& y) {
  std::string name = name_of(how);
  name += ", " + describe(a.size) + " and " + describe(b.size);
  return {std::move(name), [how, activation, a, b, y](const Frame& frame) {
            const Pair image = y.size.image;
            // One row after the other where an operand has one row, or one column, for all.
            const auto is_spread = [&](const Operand& x) {
              return x.size.pixels() > 1 && x.size.pixels() < y.size.pixels();
            };
            const int64_t rows = is_spread(a) || is_spread(b) ? image.h : 1;
            const int64_t pixels = y.size.pixels() / rows;
            for_blocks(frame, y, y.block_step(), [&](int64_t n, int64_t block) {
              const auto operand = [&](const Operand& x, int64_t row) {
                const bool one_channel = x.size.c == 1 && y.size.c > 1;
                const int64_t at = x.size.image.h > 1 ? row * x.size.image.w * kChannelBlock : 0;
                const bool one_pixel = rows > 1 ? x.size.image.w == 1 : x.size.pixels() == 1;
                return kernels::CombineTask::Operand{
                    x.block(frame, n, one_channel ? 0 : block) + at, one_pixel ? 0 : kChannelBlock,
                    one_channel};
              };
              float* const to = y.block(frame, n, block);
              for (int64_t row = 0; row < rows; ++row) {
                frame.isa.layers.combine({how, operand(a, row), operand(b, row),
                                          to + row * pixels * kChannelBlock, pixels, activation});
              }
            });
          }};
}

}  // namespace

Step add_step(const Add& layer, const Operand& a, const Operand& b, const Operand& y) {
  if (!(a.size == b.size)) return broadcast_step(How::add, layer.activation, a, b, y);
  return map_step("add", a, y,
                  [b, activation = layer.activation](const Frame& frame, int64_t n, int64_t block,
                                                     MapTask& task) {
                    task.b = b.block(frame, n, block);
                    task.activation = activation;
                  });
}

Step combine_step(const Combine& layer, const Operand& a, const Operand& b, const Operand& y) {
  return broadcast_step(layer.how, layer.activation, a, b, y);
}

Step combine_numbers_step(const CombineNumbers& layer, const Operand& x, const Operand& y) {
  return {name_of(layer.how) + " by channel, " + describe(y.size),
          [layer, numbers = padded(*layer.numbers), x, y](const Frame& frame) {
            for_blocks(frame, y, y.block_step(), [&](int64_t n, int64_t block) {
              const kernels::CombineTask::Operand image{x.block(frame, n, block), kChannelBlock,
                                                        false};
              const kernels::CombineTask::Operand constant{numbers.data() + block * kChannelBlock,
                                                           0, false};
              frame.isa.layers.combine({layer.how, layer.first ? constant : image,
                                        layer.first ? image : constant, y.block(frame, n, block),
                                        y.size.pixels(), layer.activation});
            });
          }};
}

Step combine_image_step(const CombineImage& layer, const Operand& x, const Operand& y) {
  // As images lie in memory, [blocks][pixels][16].
  std::vector<float> blocked(static_cast<std::size_t>(y.blocks() * y.block_step()));
  const int64_t pixels = y.size.pixels();
  for (int64_t c = 0; c < y.size.c; ++c) {
    float* const to = blocked.data() + c / kChannelBlock * y.block_step() + c % kChannelBlock;
    for (int64_t i = 0; i < pixels; ++i) to[i * kChannelBlock] = (*layer.values)[c * pixels + i];
  }
  const auto combine = [how = layer.how, first = layer.first, blocked = std::move(blocked), x,
                        y](const Frame& frame) {
    for_blocks(frame, y, y.block_step(), [&](int64_t n, int64_t block) {
      const kernels::CombineTask::Operand image{x.block(frame, n, block), kChannelBlock, false};
      const kernels::CombineTask::Operand constant{blocked.data() + block * y.block_step(),
                                                   kChannelBlock, false};
      frame.isa.layers.combine({how, first ? constant : image, first ? image : constant,
                                y.block(frame, n, block), y.size.pixels(), Activation::none});
    });
  };
  return {name_of(layer.how) + " image, " + describe(y.size), combine};
}

Step affine_step(const Affine& layer, const Operand& x, const Operand* residual, const Operand& y) {
  return map_step(
      "affine", x, y,
      [scale = padded(*layer.scale), shift = padded(*layer.shift), activation = layer.activation,
       sums = residual != nullptr, also = residual ? *residual : Operand{}](
          const Frame& frame, int64_t n, int64_t block, MapTask& task) {
        task.scale = scale.data() + block * kChannelBlock;
        task.shift = shift.data() + block * kChannelBlock;
        if (sums) task.b = also.block(frame, n, block);
        task.activation = activation;
      });
}

Step slope_step(const Slope& layer, const Operand& x, const Operand& y) {
  return map_step(
      "prelu", x, y,
      [slope = padded(*layer.slope)](const Frame&, int64_t, int64_t block, MapTask& task) {
        task.slope = slope.data() + block * kChannelBlock;
      });
}

}  // namespace convship::plan
