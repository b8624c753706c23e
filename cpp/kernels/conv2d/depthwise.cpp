#include "kernels/conv2d/depthwise.h"

#include <algorithm>

#include "kernels/conv2d/cut.h"

namespace convship::kernels::conv2d {
namespace {

// Whole vectors of channels are written where they lie in the output.
bool vectors_adjoin(const View<const float>& view, int64_t lanes) {
  return view.block == 1 ? view.c_step == 1 : view.block % lanes == 0;
}

}  // namespace

bool DepthwisePack::serves(const Call<float>& call) {
  const Geometry& g = call.geometry;
  const auto same_steps = [](const auto& a, const auto& b) {
    return a.n_step == b.n_step && a.c_step == b.c_step && a.h_step == b.h_step &&
           a.w_step == b.w_step && a.block == b.block;
  };
  const View<const float> output{call.output.data,   call.output.n_step, call.output.c_step,
                                 call.output.h_step, call.output.w_step, call.output.block};
  return g.groups == g.c_in && g.c_out == g.c_in && g.c_in > 1 && g.pool_size.h == 1 &&
         g.pool_size.w == 1 && g.pool_stride.h == 1 && g.pool_stride.w == 1 && !call.index &&
         vectors_adjoin(call.input, kChannelBlock) && vectors_adjoin(output, kChannelBlock) &&
         (!call.residual.data || same_steps(call.residual, output));
}

DepthwisePack::DepthwisePack(const InstructionSet& isa,
                             const WeightShape& shape,
                             const float* weight,
                             const float* bias)
    : loops_(isa.layers), interleave_(isa.single.interleave), lanes_(isa.single.lanes) {
  const int64_t taps = shape.kernel.h * shape.kernel.w;
  const int64_t padded = ceil_div(shape.c_out, lanes_) * lanes_;
  weight_ = make_aligned<float>(padded * taps);
  bias_ = make_aligned<float>(padded);
  for (int64_t c = 0; c < padded; ++c) {
    const bool exists = c < shape.c_out;
    bias_[c] = bias && exists ? bias[c] + 0.0f : 0.0f;  // never -0.0
    for (int64_t k = 0; k < taps; ++k) {
      weight_[(c / lanes_ * taps + k) * lanes_ + c % lanes_] = exists ? weight[c * taps + k] : 0;
    }
  }
}

std::vector<int64_t> DepthwisePack::run(const Call<float>& call, const Parallel& parallel) const {
  const Geometry& g = call.geometry;
  const int64_t vectors = ceil_div(g.c_in, lanes_);
  const int64_t taps = g.kernel.h * g.kernel.w;
  DepthwiseTask base{};
  base.x_row = call.input.h_step;
  base.x_column = call.input.w_step;
  base.y_row = call.output.h_step;
  base.y_column = call.output.w_step;
  base.kernel = g.kernel;
  base.stride = g.stride;
  base.dilation = g.dilation;
  base.activation = call.activation;
  // Bands, too, where there are few vectors for the threads.
  const int64_t bands = parallel.width() > 1 && g.n * vectors < 4 * parallel.width()
                            ? std::min<int64_t>(g.conv.h, 4)
                            : 1;
  const int64_t rows = ceil_div(g.conv.h, bands);
  const bool padded = g.padding.h > 0 || g.padding.w > 0;
  Interleave<float> copy{};
  copy.c_step = call.input.c_step;
  copy.h_step = call.input.h_step;
  copy.w_step = call.input.w_step;
  copy.block = call.input.block;
  copy.image = g.image;
  copy.left = -g.padding.w;
  copy.columns = (g.conv.w - 1) * g.stride.w + (g.kernel.w - 1) * g.dilation.w + 1;
  const double operations = 2.0 * static_cast<double>(taps * lanes_ * rows * g.conv.w);
  constexpr double kWorthAThread = 4e4;
  const auto grain = static_cast<int64_t>(std::clamp(kWorthAThread / operations, 1.0, 1e6));
  parallel.run(g.n * vectors * bands, grain, [&](int64_t begin, int64_t end) {
    const auto strip =
        make_aligned<float>(padded ? rows_under(rows, g) * copy.columns * lanes_ : 0);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / bands / vectors, c = item / bands % vectors * lanes_;
      const int64_t first = item % bands * rows;
      if (first >= g.conv.h) continue;
      DepthwiseTask task = base;
      task.size = {std::min(rows, g.conv.h - first), g.conv.w};
      task.channels = std::min(lanes_, g.c_in - c);
      task.y = call.output.at(n, c, first, 0);
      task.residual = call.residual.data ? call.residual.at(n, c, first, 0) : nullptr;
      task.weight = weight_.get() + c * taps;
      task.bias = bias_.get() + c;
      if (padded) {
        Interleave<float> source = copy;
        source.x = call.input.at(n, c, 0, 0);
        source.channels = task.channels;
        source.top = first * g.stride.h - g.padding.h;
        source.rows = rows_under(task.size.h, g);
        interleave_(source, strip.get());
        task.x = strip.get();
        task.x_row = copy.columns * lanes_;
        task.x_column = lanes_;
      } else {
        task.x = call.input.at(n, c, first * g.stride.h, 0);
      }
      loops_.depthwise(task);
    }
  });
  return {};
}

}  // namespace convship::kernels::conv2d
