#include "kernels/conv2d/groups.h"

#include <algorithm>

#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/family.h"
#include "kernels/scratch.h"

namespace convship::kernels::conv2d {
namespace {

// Whole vectors of channels are written where they lie in the output.
bool vectors_adjoin(const View<const float>& view, int64_t lanes) {
  return view.block == 1 ? view.c_step == 1 : view.block % lanes == 0;
}

// Whether rows are copied before they are summed: where columns are so far apart that they
// compete for the same lines of a cache, where a column is loaded for each of many taps, and
// where some results see nothing but padding.
bool reads_a_copy(const Geometry& g, int64_t column_step) {
  constexpr int64_t kSharesLines = 128, kManyTaps = 8;
  const int64_t reach = (g.kernel.w - 1) * g.dilation.w;
  const int64_t last = (g.conv.w - 1) * g.stride.w - g.padding.w;
  if (g.padding.w > reach || last >= g.image.w) return true;
  return g.stride.w == 1 && (column_step % kSharesLines == 0 || g.kernel.w >= kManyTaps);
}

}  // namespace

bool GroupsPack::serves(const Call<float>& call, const InstructionSet& isa) {
  const auto same_steps = [](const auto& a, const auto& b) {
    return a.n_step == b.n_step && a.c_step == b.c_step && a.h_step == b.h_step &&
           a.w_step == b.w_step && a.block == b.block;
  };
  const View<const float> output = read_only(call.output);
  return has_small_groups(call.geometry, isa.single.lanes) && !call.index &&
         vectors_adjoin(call.input, kChannelBlock) && vectors_adjoin(output, kChannelBlock) &&
         (!call.residual.data || same_steps(call.residual, output));
}

GroupsPack::GroupsPack(const InstructionSet& isa,
                       const WeightShape& shape,
                       const float* weight,
                       const float* bias)
    : loops_(isa.layers), lanes_(isa.single.lanes), width_(shape.channels) {
  const int64_t taps = shape.kernel.h * shape.kernel.w;
  const int64_t padded = ceil_div(shape.c_out, lanes_) * lanes_;
  weight_ = make_aligned<float>(padded * taps * width_);
  bias_ = make_aligned<float>(padded);
  for (int64_t o = 0; o < padded; ++o) {
    const bool exists = o < shape.c_out;
    bias_[o] = bias && exists ? bias[o] + 0.0f : 0.0f;  // never -0.0
    for (int64_t i = 0; i < width_ * taps; ++i) {
      const int64_t channel = i / taps, tap = i % taps;
      const int64_t place = ((o / lanes_ * taps + tap) * width_ + channel) * lanes_ + o % lanes_;
      weight_[place] = exists ? weight[o * width_ * taps + i] : 0;
    }
  }
}

std::vector<int64_t> GroupsPack::run(const Call<float>& call, const Parallel& parallel) const {
  const Geometry& g = call.geometry;
  const int64_t vectors = ceil_div(g.c_in, lanes_);
  const int64_t taps = g.kernel.h * g.kernel.w;
  GroupsTask base{};
  base.x_row = call.input.h_step;
  base.x_column = call.input.w_step;
  base.y_row = call.output.h_step;
  base.y_column = call.output.w_step;
  base.kernel = g.kernel;
  base.stride = g.stride;
  base.dilation = g.dilation;
  base.width = width_;
  base.activation = call.activation;
  base.image = g.image;
  const bool copied = reads_a_copy(g, call.input.w_step);
  const int64_t columns = columns_under(g);
  // Bands of rows: they stay in a cache for the vectors that share its lines; work for every
  // thread.
  constexpr int64_t kStripBytes = 48 << 10;
  const int64_t row_bytes = columns * lanes_ * static_cast<int64_t>(sizeof(float));
  const int64_t rows_in_cache =
      std::max<int64_t>(4, (kStripBytes / row_bytes - rows_under(1, g)) / g.stride.h + 1);
  const bool few = parallel.width() > 1 && g.n * vectors < 4 * parallel.width();
  const int64_t bands =
      std::max(few ? std::min<int64_t>(g.conv.h, 4) : 1, ceil_div(g.conv.h, rows_in_cache));
  const int64_t rows = ceil_div(g.conv.h, bands);
  const double operations = 2.0 * static_cast<double>(taps * width_ * lanes_ * rows * g.conv.w);
  constexpr double kWorthAThread = 4e4;
  const auto grain = static_cast<int64_t>(std::clamp(kWorthAThread / operations, 1.0, 1e6));
  // Vectors that share cache lines of a band follow each other.
  const int64_t share = std::max<int64_t>(1, kChannelBlock / lanes_);
  const int64_t blocks = ceil_div(vectors, share);
  parallel.run(g.n * blocks * bands * share, grain, [&](int64_t begin, int64_t end) {
    const auto strip = make_scratch<float>(copied ? rows_under(rows, g) * columns * lanes_ : 0);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t place = item / share;
      const int64_t n = place / bands / blocks;
      const int64_t c = (place / bands % blocks * share + item % share) * lanes_;
      const int64_t first = place % bands * rows;
      if (first >= g.conv.h || c >= g.c_in) continue;
      GroupsTask task = base;
      task.size = {std::min(rows, g.conv.h - first), g.conv.w};
      task.corner = {first * g.stride.h - g.padding.h, -g.padding.w};
      task.channels = std::min(lanes_, g.c_in - c);
      task.x = call.input.at(n, c, 0, 0);
      task.strip = copied ? strip.get() : nullptr;
      task.y = call.output.at(n, c, first, 0);
      task.residual = call.residual.data ? call.residual.at(n, c, first, 0) : nullptr;
      task.weight = weight_.get() + c * taps * width_;
      task.bias = bias_.get() + c;
      loops_.groups(task);
    }
  });
  return {};
}

}  // namespace convship::kernels::conv2d
