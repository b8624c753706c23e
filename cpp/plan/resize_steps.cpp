// Steps that change an image's sides: rows and columns from elsewhere, or between two.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/layers/tasks.h"
#include "plan/steps.h"

namespace convship::plan {
namespace {

using kernels::Between;
using kernels::conv2d::kChannelBlock;

// visit(n, block, begin, end): rows of the result, of every block of 16 channels.
template <typename Visit>
void for_rows(const Frame& frame, const Operand& y, const Visit& visit) {
  const int64_t blocks = y.blocks(), rows = y.size.image.h;
  frame.parallel.run(y.size.n * blocks * rows, grain(y.size.image.w * kChannelBlock),
                     [&](int64_t begin, int64_t end) {
                       while (begin < end) {
                         const int64_t place = begin / rows, row = begin % rows;
                         const int64_t count = std::min(end - begin, rows - row);
                         visit(place / blocks, place % blocks, row, row + count);
                         begin += count;
                       }
                     });
}

constexpr int64_t kNowhere = -1;

// Pixel (p, q) of the result is (rows[p], columns[q]) of x, or `fill` everywhere where
// one of them is nowhere.
Step pick_step(std::string name,
               const Operand& x,
               const Operand& y,
               std::vector<int64_t> rows,
               std::vector<int64_t> columns,
               float fill) {
  name += ", " + describe(x.size) + " to " + describe(y.size);
  return {std::move(name),
          [x, y, rows = std::move(rows), columns = std::move(columns), fill](const Frame& frame) {
            for_rows(frame, y, [&](int64_t n, int64_t block, int64_t begin, int64_t end) {
              const float* const from = x.block(frame, n, block);
              const int64_t row = x.size.image.w * kChannelBlock;
              float* to = y.block(frame, n, block) + begin * y.size.image.w * kChannelBlock;
              for (int64_t p = begin; p < end; ++p) {
                for (const int64_t q : columns) {
                  if (rows[p] == kNowhere || q == kNowhere) {
                    std::fill_n(to, kChannelBlock, fill);
                  } else {
                    std::copy_n(from + rows[p] * row + q * kChannelBlock, kChannelBlock, to);
                  }
                  to += kChannelBlock;
                }
              }
            });
          }};
}

// Where pixel i of the padded side comes from.
int64_t source(Pad::Kind kind, int64_t i, int64_t size) {
  if (i >= 0 && i < size) return i;
  switch (kind) {
    case Pad::Kind::constant:
      return kNowhere;
    case Pad::Kind::reflect:
      return i < 0 ? -i : 2 * (size - 1) - i;
    case Pad::Kind::replicate:
      return i < 0 ? 0 : size - 1;
    case Pad::Kind::circular:
      return i < 0 ? i + size : i - size;
  }
  return kNowhere;
}

// Of the input's coordinates, for one of the result's, in torch's float arithmetic: a
// coordinate on an edge must fall to the same side.
float step_of(int64_t in, int64_t out, const std::optional<double>& scale) {
  if (scale && *scale > 0) return static_cast<float>(1 / *scale);
  return static_cast<float>(in) / static_cast<float>(out);
}

std::vector<int64_t> nearest(int64_t in, int64_t out, const std::optional<double>& scale) {
  std::vector<int64_t> from(out);
  const float step = step_of(in, out, scale);
  for (int64_t i = 0; i < out; ++i) {
    // As torch, whatever the scale.
    if (out == in || out == 2 * in) {
      from[i] = i * in / out;
      continue;
    }
    from[i] = std::min(static_cast<int64_t>(std::floor(static_cast<float>(i) * step)), in - 1);
  }
  return from;
}

std::vector<Between> linear(int64_t in,
                            int64_t out,
                            bool aligned,
                            const std::optional<double>& scale) {
  std::vector<Between> list(out);
  const float step = !aligned  ? step_of(in, out, scale)
                     : out > 1 ? static_cast<float>(in - 1) / static_cast<float>(out - 1)
                               : 0.0f;
  for (int64_t i = 0; i < out; ++i) {
    if (out == in) {  // as torch, whatever the scale
      list[i] = {i, i, 0};
      continue;
    }
    const auto place = static_cast<float>(i);
    const float at = aligned ? step * place : std::max(0.0f, step * (place + 0.5f) - 0.5f);
    const int64_t first = std::min(static_cast<int64_t>(at), in - 1);
    const float share = std::clamp(at - static_cast<float>(first), 0.0f, 1.0f);
    list[i] = {first, std::min(first + 1, in - 1), share};
  }
  return list;
}

}  // namespace

Step pad_step(const Pad& layer, Pair corner, const Operand& x, const Operand& y) {
  const auto sources = [&](int64_t before, int64_t in, int64_t out) {
    std::vector<int64_t> list(out);
    for (int64_t i = 0; i < out; ++i) list[i] = source(layer.kind, i - before, in);
    return list;
  };
  return pick_step("pad", x, y, sources(corner.h, x.size.image.h, y.size.image.h),
                   sources(corner.w, x.size.image.w, y.size.image.w), layer.value);
}

Step upsample_step(const Upsample& layer, const Operand& x, const Operand& y) {
  const Pair in = x.size.image, out = y.size.image;
  if (layer.way == Upsample::Way::nearest) {
    return pick_step("upsample nearest", x, y, nearest(in.h, out.h, layer.scale_h),
                     nearest(in.w, out.w, layer.scale_w), 0);
  }
  const bool aligned = layer.way == Upsample::Way::bilinear_aligned;
  return {"upsample bilinear, " + describe(x.size) + " to " + describe(y.size),
          [x, y, rows = linear(in.h, out.h, aligned, layer.scale_h),
           columns = linear(in.w, out.w, aligned, layer.scale_w)](const Frame& frame) {
            for_rows(frame, y, [&](int64_t n, int64_t block, int64_t begin, int64_t end) {
              kernels::InterpolateTask task{};
              task.x = x.block(frame, n, block);
              task.x_row = x.size.image.w * kChannelBlock;
              task.y = y.block(frame, n, block);
              task.y_row = y.size.image.w * kChannelBlock;
              task.rows = rows.data();
              task.columns = columns.data();
              task.begin = begin;
              task.end = end;
              task.width = y.size.image.w;
              frame.isa.layers.interpolate(task);
            });
          }};
}

namespace {

// fill(frame, image, channel, row, pixel) for each row of each channel of y, from its pixel on.
template <typename Fill>
Step rearrange_step(std::string name, const Operand& x, const Operand& y, Fill fill) {
  name += ", " + describe(x.size) + " to " + describe(y.size);
  return {std::move(name), [y, fill](const Frame& frame) {
            for_rows(frame, y, [&](int64_t n, int64_t block, int64_t begin, int64_t end) {
              const int64_t first = block * kChannelBlock;
              const int64_t exist = std::min(kChannelBlock, y.size.c - first);
              float* const to = y.block(frame, n, block);
              for (int64_t p = begin; p < end; ++p) {
                float* const row = to + p * y.size.image.w * kChannelBlock;
                for (int64_t c = 0; c < exist; ++c) fill(frame, n, first + c, p, row + c);
              }
            });
          }};
}

// Of one channel each, every from_step-th pixel to every to_step-th.
void copy_pixels(const float* from, int64_t from_step, float* to, int64_t to_step, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    to[i * to_step * kChannelBlock] = from[i * from_step * kChannelBlock];
  }
}

}  // namespace

// Channel c, pixel (p, q) is channel c * factor^2 + p % factor * factor + q % factor of
// the pixel (p / factor, q / factor).
Step pixel_shuffle_step(const PixelShuffle& layer, const Operand& x, const Operand& y) {
  return rearrange_step(
      "pixel shuffle", x, y,
      [x, factor = layer.factor](const Frame& frame, int64_t n, int64_t c, int64_t p, float* row) {
        const int64_t width = x.size.image.w, source = (c * factor + p % factor) * factor;
        for (int64_t j = 0; j < factor; ++j) {
          const float* from = x.channel(frame, n, source + j) + p / factor * width * kChannelBlock;
          copy_pixels(from, 1, row + j * kChannelBlock, factor, width);
        }
      });
}

// Channel c, pixel (p, q) is channel c / factor^2 of the pixel (p * factor + i, q * factor + j),
// i and j the digits of c % factor^2 to the base factor.
Step pixel_unshuffle_step(const PixelUnshuffle& layer, const Operand& x, const Operand& y) {
  return rearrange_step("pixel unshuffle", x, y,
                        [x, width = y.size.image.w, factor = layer.factor](
                            const Frame& frame, int64_t n, int64_t c, int64_t p, float* row) {
                          const int64_t i = c / factor % factor, j = c % factor;
                          const int64_t pixel = (p * factor + i) * x.size.image.w + j;
                          copy_pixels(
                              x.channel(frame, n, c / (factor * factor)) + pixel * kChannelBlock,
                              factor, row, 1, width);
                        });
}

}  // namespace convship::plan
