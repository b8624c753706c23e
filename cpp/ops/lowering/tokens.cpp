// Tensors whose last dimension counts through channels: what transformers, and ConvNeXt
// between its convolutions, do to every position by itself, and with constant positions.
#include <ATen/ops/cat.h>

#include <algorithm>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

// A convolution of one pixel.
Arrangement Part::pointwise(const Arrangement& x,
                            const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
  const at::Tensor kernel = weight.view({weight.size(0), weight.size(1), 1, 1});
  const Multiplied what = multiplied(as_image(x.value), kernel);
  Arrangement y = x;
  y.value = layers_.add_like(what.input, convolve(kernel, bias, 1, what.rounding), {what.input});
  y.dimensions.back() = layers_.standard(y.value).dimensions[1];
  return y;
}

// input, normalized shape, weight, bias, eps
bool Part::layer_norm(Node* node) {
  const auto shown = arranged(node->input(0));
  const auto over = constant_ints(node->input(1));
  const auto epsilon = constant_number(node->input(4));
  if (!shown || shown->rank() < 2 || !over || over->size() != 1 || !epsilon) return false;
  auto x = with_channels_at(*shown, shown->rank() - 1, over->front());
  if (!x) return false;
  auto scale = channel_numbers(node->input(2), over->front(), 1);
  auto shift = channel_numbers(node->input(3), over->front(), 0);
  if (!scale || !shift) return false;
  x->value = layers_.add_like(
      x->value, plan::Normalize{std::move(scale), std::move(shift), static_cast<float>(*epsilon)},
      {x->value});
  show(node->output(), *std::move(x));
  return true;
}

namespace {

// A constant's elements in the order of a value's sides. Where `axes` of the value's standard
// dimensions stand among those of a tensor, the constant has as many or one.
std::optional<at::Tensor> in_standard_order(const at::Tensor& constant,
                                            const Dimensions& shown,
                                            const Dimensions& standard) {
  const auto spread = with_rank(constant, shown.size());
  if (!spread) return {};
  std::vector<int64_t> order;
  for (const Axes& side : standard) {
    const auto at = std::find(shown.begin(), shown.end(), side);
    if (side.empty() || at == shown.end()) return {};
    order.push_back(at - shown.begin());
  }
  for (std::size_t d = 0; d < shown.size(); ++d) {
    const auto place = static_cast<int64_t>(d);
    if (std::find(order.begin(), order.end(), place) != order.end()) continue;
    if (spread->size(place) != 1) return {};
    order.push_back(place);
  }
  std::vector<int64_t> sizes;
  const at::Tensor ordered = spread->permute(order);
  for (std::size_t d = 0; d < standard.size(); ++d) {
    sizes.push_back(ordered.size(static_cast<int64_t>(d)));
  }
  return sizes[0] == 1 ? std::optional(ordered.reshape(sizes)) : std::nullopt;
}

}  // namespace

// x + factor * constants, of which there is one for each pixel, or each pixel's channel.
bool Part::add_image(Node* node, const Value* x, const at::Tensor& constants, double factor) {
  Arrangement shown = in_a_row(*arranged(x));
  const Dimensions whole = layers_.standard(shown.value).dimensions;
  const auto count = layers_.channels(shown.value);
  const auto ordered = in_standard_order(constants, shown.dimensions, whole);
  if (!ordered || !count || whole.size() < 3) return false;
  const auto all = ordered->dim() == 3 ? ordered->unsqueeze(2) : *ordered;
  if (all.size(1) != 1 && all.size(1) != *count) return false;  // LibTorch refuses it
  const plan::Pair image{all.size(2), all.size(3)};
  const at::Tensor added = all[0].mul(factor).expand({*count, image.h, image.w});
  shown.value =
      layers_.add_like(shown.value, plan::AddImage{floats_of(added), image}, {shown.value});
  show(node->output(), std::move(shown));
  return true;
}

// A constant for each image; or a tensor whose places sums and the like repeat by themselves.
bool Part::expand(Node* node) {
  const auto sizes = facts_.numbers(node->input(1));
  if (!sizes) return false;
  if (arranged(node->input(0))) return expand_to(node, *sizes);
  const auto weight = constant_weight(node->input(0), static_cast<int64_t>(sizes->size()));
  if (!weight || weight->dim() < 2 || weight->size(0) != 1 || !(*sizes)[0].extent()) {
    return false;
  }
  for (int64_t d = 1; d < weight->dim(); ++d) {
    const auto size = (*sizes)[d].integer();
    if (size != -1 && size != weight->size(d)) return false;
  }
  facts_.learn(node->output(), Repeated{*weight, (*sizes)[0]});
  return true;
}

// Constant positions before a tensor's, or behind them.
bool Part::add_pixels(Node* node, const Tensors& tensors) {
  const auto over = constant_int(node->input(1));
  const auto at = std::find_if(tensors.begin(), tensors.end(),
                               [&](const Value* v) { return arranged(v).has_value(); });
  if (at == tensors.end()) return false;
  Arrangement x = in_a_row(*arranged(*at));
  const auto d = place_of(over, x.rank());
  const Dimensions whole = layers_.standard(x.value).dimensions;
  if (!d || whole.size() != 3 || x.dimensions[*d] != whole[2]) return false;
  std::vector<at::Tensor> before, behind;
  for (auto each = tensors.begin(); each != tensors.end(); ++each) {
    if (each == at) continue;
    const auto* repeated = facts_.find<Repeated>(*each);
    if (!repeated || !is_batch(repeated->times, x.value)) return false;
    const auto ordered = in_standard_order(repeated->constant, x.dimensions, whole);
    if (!ordered || ordered->size(1) != layers_.channels(x.value)) return false;
    (each < at ? before : behind).push_back(ordered->squeeze(0).t());
  }
  const auto add = [&](const std::vector<at::Tensor>& pixels, bool last) {
    if (pixels.empty()) return;
    const at::Tensor all = at::cat(pixels);
    x.value = layers_.add(plan::AddPixels{floats_of(all), all.size(0), last}, {x.value},
                          layers_.dimensions(x.value));
  };
  add(before, false);
  add(behind, true);
  x.dimensions[*d] = layers_.standard(x.value).dimensions[2];
  show(node->output(), std::move(x));
  return true;
}

}  // namespace convship::ops::lowering
