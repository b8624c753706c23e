#include <algorithm>

#include "plan/steps.h"

namespace convship::plan {
namespace {

using kernels::conv2d::Geometry;

Geometry geometry_of(const Convolve& layer, const Size& x, const Size& y) {
  Geometry g{};
  g.n = x.n;
  g.c_in = x.c;
  g.image = x.image;
  g.c_out = y.c;
  g.kernel = layer.shape.kernel;
  g.stride = layer.stride;
  g.padding = layer.padding;
  g.dilation = layer.dilation;
  g.groups = layer.shape.groups;
  g.conv = convolved(layer, x.image);
  g.pool_size = layer.pool.size;
  g.pool_stride = layer.pool.stride;
  g.pool_padding = layer.pool.padding;
  g.pooled = y.image;
  return g;
}

// Reads every pixel once and by itself.
bool is_pointwise(const Geometry& g) {
  const auto one = [](Pair p) { return p.h == 1 && p.w == 1; };
  return one(g.kernel) && one(g.stride) && one(g.pool_size) && one(g.pool_stride) &&
         g.padding.h == 0 && g.padding.w == 0;
}

// A pointwise layer sees no rows, so they may be as long as suits the loops: a
// divisor of the pixels that fills tiles of `tile` columns, and leaves threads
// enough rows to share.
Pair regrouped(Pair image, int64_t tile) {
  const int64_t pixels = image.h * image.w;
  Pair best = image;
  double most = 0;
  for (int64_t w = 1; w <= pixels; ++w) {
    if (pixels % w != 0) continue;
    constexpr double kEnoughRows = 32, kOneRow = 0.9;
    const double rows = std::min(1.0, static_cast<double>(pixels / w) / kEnoughRows);
    const double tiles = static_cast<double>((w + tile - 1) / tile * tile);
    const double use = static_cast<double>(w) / tiles * (kOneRow + (1 - kOneRow) * rows);
    if (use > most - 1e-9) {
      most = use;
      best = {pixels / w, w};
    }
  }
  return best;
}

}  // namespace

Step convolve_step(const Convolve& layer, const Operand& x, const Operand* residual, Operand y) {
  Geometry g = geometry_of(layer, x.size, y.size);
  const auto in_memory = [](const Operand& o) { return o.place.where == Place::Where::memory; };
  std::string name = "convolution " + std::to_string(g.kernel.h) + "x" +
                     std::to_string(g.kernel.w) + (layer.pooled ? " and max pool" : "") + ", " +
                     describe(x.size) + " to " + describe(y.size) + ": ";
  Operand from = x;
  Operand also = residual ? *residual : Operand{};
  if (in_memory(x) && in_memory(y) && is_pointwise(g) && g.groups == 1) {
    if (x.size.pixels() == 1 && !residual && !layer.weights->rounding()) {
      Operand row = x, result = y;
      row.size.matrix = result.size.matrix = true;
      Step step =
          linear_step({layer.weight, layer.bias, g.c_in, g.c_out, layer.activation}, row, result);
      return {name + "linear", std::move(step.run)};
    }
    constexpr int64_t kTileOfWideVectors = 14;
    from.size.image = y.size.image = also.size.image = g.image = g.conv = g.pooled =
        regrouped(g.image, kTileOfWideVectors);
  }
  name += kernels::conv2d::family_name(layer.weights->family(g, in_memory(x), in_memory(y)));
  return {name, [weights = layer.weights, activation = layer.activation, g, from, also, y,
                 sums = residual != nullptr](const Frame& frame) {
            weights->run(g, activation, from.const_view(frame), y.view(frame),
                         sums ? also.const_view(frame) : kernels::conv2d::View<const float>{}, {},
                         frame.parallel);
          }};
}

}  // namespace convship::plan
