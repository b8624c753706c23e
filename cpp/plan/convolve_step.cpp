#include <algorithm>
#include <string>
#include <vector>

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

// A convolution whose kernel reaches far beyond the image, as DeepLab's do with dilations of
// 12 to 36, as one of the taps that meet it somewhere: its strips of padding would be many
// times the image.
class Trimmed {
 public:
  Trimmed(const Convolve& layer, const Geometry& g) : geometry_(g), weights_(layer.weights) {
    const Range rows = used(g.kernel.h, g.stride.h, g.padding.h, g.dilation.h, g.image.h, g.conv.h);
    const Range columns =
        used(g.kernel.w, g.stride.w, g.padding.w, g.dilation.w, g.image.w, g.conv.w);
    const Pair kernel{rows.end - rows.begin, columns.end - columns.begin};
    // Steps between levels of integers are those of all of a row's weights.
    if (layer.weights->rounding() || kernel.h * kernel.w == g.kernel.h * g.kernel.w) return;
    const int64_t planes = layer.shape.c_out * layer.shape.channels;
    auto taps = std::make_shared<std::vector<float>>(planes * kernel.h * kernel.w);
    auto to = taps->begin();
    for (int64_t plane = 0; plane < planes; ++plane) {
      for (int64_t i = rows.begin; i < rows.end; ++i) {
        const float* row = layer.weight + (plane * g.kernel.h + i) * g.kernel.w;
        to = std::copy(row + columns.begin, row + columns.end, to);
      }
    }
    kernels::conv2d::WeightShape shape = layer.shape;
    shape.kernel = geometry_.kernel = kernel;
    geometry_.padding = {g.padding.h - rows.begin * g.dilation.h,
                         g.padding.w - columns.begin * g.dilation.w};
    if (kernel.h == 1) geometry_.dilation.h = 1;
    if (kernel.w == 1) geometry_.dilation.w = 1;
    taps_ = std::move(taps);
    weights_ = std::make_shared<const kernels::conv2d::Convolution<float>>(
        taps_->data(), layer.bias, shape, layer.weights->accuracy());
  }

  const Geometry& geometry() const { return geometry_; }
  const float* weight(const Convolve& layer) const { return taps_ ? taps_->data() : layer.weight; }
  // With the taps that they refer to.
  std::shared_ptr<const kernels::conv2d::Convolution<float>> weights() const {
    if (!taps_) return weights_;
    const auto both =
        std::make_shared<std::pair<decltype(taps_), decltype(weights_)>>(taps_, weights_);
    return {both, weights_.get()};
  }

 private:
  using Range = kernels::conv2d::Range;

  // Along one side, the kernel's positions that meet the image from anywhere.
  static Range used(int64_t kernel,
                    int64_t stride,
                    int64_t padding,
                    int64_t dilation,
                    int64_t image,
                    int64_t conv) {
    Range range{kernel, 0};
    for (int64_t i = 0; dilation > 1 && i < kernel; ++i) {
      const Range positions =
          kernels::conv2d::sources_inside(i * dilation - padding, stride, image, conv);
      if (positions.begin >= positions.end) continue;
      range.begin = std::min(range.begin, i);
      range.end = i + 1;
    }
    const bool some = range.begin < range.end && range.begin * dilation <= padding;
    return some ? range : Range{0, kernel};
  }

  Geometry geometry_;
  std::shared_ptr<const std::vector<float>> taps_;
  std::shared_ptr<const kernels::conv2d::Convolution<float>> weights_;
};

// Reads every pixel once and by itself.
bool is_pointwise(const Geometry& g) {
  const auto one = [](Pair p) { return p.h == 1 && p.w == 1; };
  return one(g.kernel) && one(g.stride) && !kernels::conv2d::is_pooled(g) &&
         !kernels::conv2d::is_padded(g) && g.conv.h == g.image.h && g.conv.w == g.image.w;
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
  const Trimmed trimmed(layer, geometry_of(layer, x.size, y.size));
  Geometry g = trimmed.geometry();
  const auto weights = trimmed.weights();
  std::string name = "convolution " + std::to_string(layer.shape.kernel.h) + "x" +
                     std::to_string(layer.shape.kernel.w) + (layer.pooled ? " and max pool" : "") +
                     ", " + describe(x.size) + " to " + describe(y.size) + ": ";
  Operand from = x;
  Operand also = residual ? *residual : Operand{};
  if (x.place.in_memory() && y.place.in_memory() && is_pointwise(g) && g.groups == 1) {
    if (x.size.pixels() == 1 && !residual && !weights->rounding()) {
      Operand row = x, result = y;
      row.size.matrix = result.size.matrix = true;
      Step step = linear_step(
          {trimmed.weight(layer), layer.bias, g.c_in, g.c_out, layer.activation}, row, result);
      // The trimmed taps live as long as the weights.
      return {name + "linear",
              [weights, run = std::move(step.run)](const Frame& frame) { run(frame); }};
    }
    constexpr int64_t kTileOfWideVectors = 14;
    from.size.image = y.size.image = also.size.image = g.image = g.conv = g.pooled =
        regrouped(g.image, kTileOfWideVectors);
  }
  name +=
      kernels::conv2d::family_name(weights->family(g, x.place.in_memory(), y.place.in_memory()));
  return {name, [weights, activation = layer.activation, g, from, also, y,
                 sums = residual != nullptr](const Frame& frame) {
            weights->run(g, activation, from.const_view(frame), y.view(frame),
                         sums ? also.const_view(frame) : kernels::conv2d::View<const float>{}, {},
                         frame.parallel);
          }};
}

Step transposed_step(const TransposedConvolve& layer, const Operand& x, const Operand& y) {
  struct Run {
    Geometry geometry;
    Pair first;  // row and column of the result
    std::shared_ptr<const kernels::conv2d::Convolution<float>> weights;
  };
  std::vector<Run> runs;
  for (const TransposedConvolve::Phase& phase : layer.phases) {
    // Row p of the result sees row q - t of x by row at + t * stride of the kernel, where
    // p + padding = q * stride + at.
    struct Side {
      int64_t first, count, padding;
    };
    const auto side = [](int64_t at, int64_t taps, int64_t stride, int64_t padding, int64_t out) {
      const int64_t q = std::max<int64_t>(0, (padding - at + stride - 1) / stride);
      const int64_t first = q * stride + at - padding;
      return Side{first, first < out ? (out - 1 - first) / stride + 1 : 0, taps - 1 - q};
    };
    const Pair taps = phase.shape.kernel;
    const Side rows = side(phase.at.h, taps.h, layer.stride.h, layer.padding.h, y.size.image.h);
    const Side columns = side(phase.at.w, taps.w, layer.stride.w, layer.padding.w, y.size.image.w);
    if (rows.count == 0 || columns.count == 0) continue;
    Geometry g{};
    g.n = x.size.n;
    g.c_in = x.size.c;
    g.image = x.size.image;
    g.c_out = y.size.c;
    g.kernel = taps;
    g.stride = g.dilation = g.pool_size = g.pool_stride = {1, 1};
    g.padding = {rows.padding, columns.padding};
    g.groups = phase.shape.groups;
    g.conv = g.pooled = {rows.count, columns.count};
    runs.push_back({g, {rows.first, columns.first}, phase.weights});
  }
  std::string name =
      "transposed convolution " + std::to_string(layer.kernel.h) + "x" +
      std::to_string(layer.kernel.w) + ", " + describe(x.size) + " to " + describe(y.size) + ": " +
      kernels::conv2d::family_name(runs.front().weights->family(runs.front().geometry, true, true));
  return {std::move(name),
          [runs, stride = layer.stride, activation = layer.activation, x, y](const Frame& frame) {
            for (const Run& run : runs) {
              kernels::conv2d::View<float> to = y.view(frame);
              to.data += run.first.h * to.h_step + run.first.w * to.w_step;
              to.h_step *= stride.h;
              to.w_step *= stride.w;
              run.weights->run(run.geometry, activation, x.const_view(frame), to, {}, {},
                               frame.parallel);
            }
          }};
}

}  // namespace convship::plan
