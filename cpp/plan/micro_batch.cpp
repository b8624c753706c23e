#include "plan/micro_batch.h"

#include <algorithm>
#include <variant>

#include "kernels/conv2d/cut.h"
#include "plan/places.h"

namespace convship::plan {
namespace {

using kernels::conv2d::ceil_div;

// Floats that a layer reads beside its inputs.
struct WeightFloats {
  double operator()(const Convolve& conv) const {
    // Winograd's transforms of them are up to four times as many.
    const int64_t taps = conv.shape.kernel.h * conv.shape.kernel.w;
    const double packed = taps > 1 && conv.shape.groups == 1 ? 4 : 1;
    return packed * static_cast<double>(conv.shape.c_out * conv.shape.channels * taps);
  }
  double operator()(const TransposedConvolve& conv) const {
    return static_cast<double>(conv.c_in * conv.c_out * conv.kernel.h * conv.kernel.w);
  }
  double operator()(const Linear& linear) const {
    return static_cast<double>(linear.in * linear.out);
  }
  double operator()(const Attend& attend) const {
    return attend.bias ? static_cast<double>(attend.bias->values.size()) : 0;
  }
  double operator()(const AddPixels& add) const { return static_cast<double>(add.values->size()); }
  double operator()(const CombineImage& combine) const {
    return static_cast<double>(combine.values->size());
  }
  template <typename Layer>
  double operator()(const Layer&) const {
    return 0;
  }
};

// For each instruction, floats of an image that are needed while it runs.
std::vector<int64_t> live_floats(const Network& network, const std::vector<Size>& sizes) {
  const auto& instructions = network.instructions();
  const int count = static_cast<int>(instructions.size());
  std::vector<int> last(sizes.size(), -1);
  for (int i = 0; i < count; ++i) {
    for (const Value v : instructions[i].inputs) last[v] = i;
  }
  for (const Value v : network.outputs()) last[v] = count - 1;
  std::vector<int64_t> live(count, 0);
  for (int i = 0; i < count; ++i) {
    const Value made = instructions[i].output;
    for (int k = i; k <= std::max(i, last[made]); ++k) live[k] += image_floats(sizes[made]);
  }
  return live;
}

// Images are told apart in all layers.
bool is_batch(const Network& network, const std::vector<Size>& sizes) {
  const int64_t n = sizes[0].n;
  const auto same = [&](Value v) { return sizes[v].n == n; };
  for (Value v = 0; v < network.inputs(); ++v) {
    if (!same(v)) return false;
  }
  return n > 1 && std::all_of(network.instructions().begin(), network.instructions().end(),
                              [&](const Instruction& i) { return same(i.output); });
}

}  // namespace

MicroBatch choose_micro_batch(const Network& network, const std::vector<Size>& sizes) {
  if (network.inputs() == 0 || !is_batch(network, sizes)) return {};
  const int64_t n = sizes[0].n;
  // The other half is for weights.
  const int64_t room = kernels::conv2d::second_level_cache() / 2 / sizeof(float);
  const auto& instructions = network.instructions();
  const std::vector<int64_t> live = live_floats(network, sizes);
  MicroBatch best;
  double most = 0, passed_on = 0, weights = 0;
  int64_t peak = 1;
  for (int i = 0; i < static_cast<int>(instructions.size()); ++i) {
    const Instruction& each = instructions[i];
    peak = std::max(peak, live[i]);
    if (!alias_channel(each, sizes)) {
      passed_on += static_cast<double>(image_floats(sizes[each.output]));
      for (const Value v : each.inputs) {
        if (v >= network.inputs()) passed_on += static_cast<double>(image_floats(sizes[v]));
      }
    }
    weights += std::visit(WeightFloats(), each.layer);
    const int64_t most_images = std::clamp<int64_t>(room / peak, 1, n);
    if (most_images == n) continue;
    // Of nearly equal size.
    const int64_t images = ceil_div(n, ceil_div(n, most_images));
    const double more_often =
        1 / static_cast<double>(images) - 1 / static_cast<double>(n);  // weights are read
    const double saved = passed_on - weights * more_often;
    if (saved > most) {
      most = saved;
      best = {i + 1, images};
    }
  }
  return best;
}

}  // namespace convship::plan
