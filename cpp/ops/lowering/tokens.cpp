// Tensors whose last dimension counts through channels: what transformers, and ConvNeXt
// between its convolutions, do to every position by itself, and with constant positions.
#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <numeric>
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

// What broadcasting makes of a constant beside a tensor whose dimensions count through all of a
// value, as that value's image: [C, H, W]. Sides of which nothing is known have as many places
// as the constant. Nothing where it differs between images, or does not tell how large it is.
std::optional<at::Tensor> image_of(const at::Tensor& constant, const Dimensions& shown) {
  const auto spread = with_rank(constant, shown.size());
  if (!spread) return {};
  Axes all;
  std::vector<int64_t> repeated, split;
  for (std::size_t d = 0; d < shown.size(); ++d) {
    const int64_t size = spread->size(static_cast<int64_t>(d));
    const Axes& axes = shown[d];
    const bool of_images = std::any_of(axes.begin(), axes.end(),
                                       [](const Axis& axis) { return axis.side == Axis::Side::n; });
    if (of_images && (size != 1 || axes.size() != 1)) return {};
    if (of_images) {
      repeated.push_back(1);
      continue;
    }
    int64_t known = 1, open = 0;
    for (const Axis& axis : axes) {
      known *= axis.count.value_or(1);
      open += axis.count ? 0 : 1;
    }
    const int64_t places = open > 0 ? size : known;
    if (open > 1 || (size == 1 && open > 0) || places % known != 0 ||
        (size != 1 && size != places)) {
      return {};
    }
    repeated.push_back(places);
    for (const Axis& axis : axes) {
      all.push_back({axis.side, axis.step, axis.count.value_or(places / known)});
      split.push_back(*all.back().count);
    }
  }
  // Outer axes of a side first.
  std::vector<int64_t> order(all.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return all[a].side != all[b].side ? all[a].side < all[b].side : all[a].step > all[b].step;
  });
  int64_t sides[] = {1, 1, 1, 1};
  for (const Axis& axis : all) sides[static_cast<int>(axis.side)] *= *axis.count;
  return spread->expand(repeated).reshape(split).permute(order).reshape(
      {sides[1], sides[2], sides[3]});
}

}  // namespace

// x op constants, of which there is one for each pixel, or each pixel's channel.
bool Part::combine_image(
    Node* node, const Value* x, How how, const at::Tensor& constants, bool reversed) {
  Arrangement shown = *arranged(x);
  const Dimensions whole = layers_.standard(shown.value).dimensions;
  const auto count = layers_.channels(shown.value);
  if (!count || whole.size() < 3 || (how == How::divide && reversed)) return false;
  auto image = image_of(constants, shown.dimensions);
  if (!image) {
    shown = in_a_row(std::move(shown));
    image = image_of(constants, shown.dimensions);
  }
  if (!image || image->size(0) != *count) return false;
  if (how == How::divide) {
    image = image->reciprocal();
    how = How::multiply;
    if (!at::isfinite(*image).all().item<bool>()) return false;
  }
  const plan::Pair sides{image->size(1), image->size(2)};
  shown.value = layers_.add_like(
      shown.value, plan::CombineImage{how, floats_of(*image), sides, reversed}, {shown.value});
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
    if (!repeated || !is_batch(repeated->times, x.value) ||
        repeated->constant.dim() != static_cast<int64_t>(x.rank())) {
      return false;
    }
    // Its own number of positions.
    Dimensions own = x.dimensions;
    own[*d] = {{Axis::Side::w, 1, repeated->constant.size(static_cast<int64_t>(*d))}};
    const auto pixels = image_of(repeated->constant, own);
    if (!pixels || pixels->size(0) != layers_.channels(x.value)) return false;
    (each < at ? before : behind).push_back(pixels->flatten(1).t());
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
