// Transposed convolutions as convolutions of stride 1.
#include <algorithm>
#include <utility>

#include "ops/kernel_call.h"
#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using plan::Pair;
using torch::jit::Node;

namespace {

// Of a kernel [c_in, c_out / groups, h, w], every stride-th row and column from `at` on,
// the last first, as [c_out, c_in / groups, h, w].
at::Tensor taps_of(const at::Tensor& weight, int64_t groups, Pair at, Pair stride) {
  const auto every = [](const at::Tensor& from, int64_t dimension, int64_t first, int64_t step) {
    return from.slice(dimension, first, from.size(dimension), step).flip(dimension);
  };
  const at::Tensor taps = every(every(weight, 2, at.h, stride.h), 3, at.w, stride.w);
  return taps.reshape({groups, taps.size(0) / groups, taps.size(1), taps.size(2), taps.size(3)})
      .transpose(1, 2)
      .reshape({groups * taps.size(1), taps.size(0) / groups, taps.size(2), taps.size(3)})
      .contiguous();
}

}  // namespace

// input, weight, bias, stride, padding, ...
bool Part::transposed_convolution(Node* node,
                                  std::size_t output_padding,
                                  std::size_t groups,
                                  std::size_t dilation) {
  const auto weight = constant_weight(node->input(1), 4);
  const auto bias = constant_weight(node->input(2), 1);
  const auto stride = constant_pair(node->input(3)), padding = constant_pair(node->input(4));
  const auto more = constant_pair(node->input(output_padding));
  const auto dilated = constant_pair(node->input(dilation));
  const auto group_count = constant_int(node->input(groups));
  if (!weight || (!bias && !is_none(node->input(2))) || !stride || !padding || !more || !dilated ||
      dilated->h != 1 || dilated->w != 1 || !group_count || *group_count < 1 ||
      weight->size(0) % *group_count != 0) {
    return false;
  }
  const Pair kernel{weight->size(2), weight->size(3)};
  // Others have rows of nothing but the bias, or first rows that see no first row of x.
  const auto usual = [](int64_t k, int64_t s, int64_t p, int64_t m) {
    return s >= 1 && p >= 0 && p <= k - s && m >= 0 && m < s;
  };
  if (!usual(kernel.h, stride->h, padding->h, more->h) ||
      !usual(kernel.w, stride->w, padding->w, more->w)) {
    return false;
  }
  // So many convolutions of few taps each would spend their time on calls.
  constexpr int64_t kMostPhases = 64;
  if (stride->h * stride->w > kMostPhases) return false;
  const auto x = tensor(node->input(0), 4);
  if (!x) return false;
  plan::TransposedConvolve layer{};
  layer.c_in = weight->size(0);
  layer.c_out = weight->size(1) * *group_count;
  layer.kernel = kernel;
  layer.stride = *stride;
  layer.padding = *padding;
  layer.output_padding = *more;
  const float* const terms = bias ? weights_->keep(*bias) : nullptr;
  for (int64_t h = 0; h < stride->h; ++h) {
    for (int64_t w = 0; w < stride->w; ++w) {
      const at::Tensor taps = taps_of(*weight, *group_count, {h, w}, *stride);
      plan::TransposedConvolve::Phase phase{{h, w}, weight_shape(taps, *group_count), nullptr};
      phase.weights = weights_->convolution(weights_->keep(taps), terms, phase.shape);
      layer.phases.push_back(std::move(phase));
    }
  }
  finish(node, std::move(layer), {*x}, 4);
  return true;
}

}  // namespace convship::ops::lowering
