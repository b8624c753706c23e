// Images as [N, H, W, C], where layers over the last dimension are layers over
// channels: what ConvNeXt and its like do between their convolutions.
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

std::optional<plan::Value> Part::elements(const Value* value) const {
  if (const auto* last = known<ChannelsLast>(value)) return last->value;
  if (inside(value)) return tensors_.at(value);
  return {};
}

void Part::finish_like(Node* node,
                       const Value* like,
                       plan::Layer layer,
                       std::vector<plan::Value> inputs) {
  if (!known<ChannelsLast>(like)) {
    const int64_t dimensions = dimensions_.at(tensors_.at(like));
    return finish(node, std::move(layer), std::move(inputs), dimensions);
  }
  const plan::Value made = push(std::move(layer), std::move(inputs));
  dimensions_[made] = 4;
  show_channels_last(node->output(0), made);
}

bool Part::finish_each(Node* node, const Value* x, plan::Layer layer, bool in_place) {
  const auto value = elements(x);
  if (!value || (in_place && !may_overwrite(x))) return false;
  if (in_place) {
    finish(node, std::move(layer), {*value}, dimensions_.at(*value), true);
  } else {
    finish_like(node, x, std::move(layer), {*value});
  }
  return true;
}

// Writing through any of the two would change both.
void Part::show_channels_last(const Value* value, plan::Value of) {
  known_[value] = ChannelsLast{of};
  shown_.insert(of);
}

// To [N, H, W, C] and back.
bool Part::permute(Node* node) {
  auto order = constant_ints(node->input(1));
  if (order == std::vector<int64_t>{0, 2, 1}) return transpose_column(node);
  if (!order || order->size() != 4) return false;
  for (int64_t& d : *order) d += d < 0 ? 4 : 0;
  const Value* x = node->input(0);
  if (const auto* last = known<ChannelsLast>(x)) {
    if (*order != std::vector<int64_t>{0, 3, 1, 2}) return false;
    bind(node->output(), last->value, 4);
    return true;
  }
  if (!inside(x) || dimensions_.at(tensors_.at(x)) != 4 ||
      *order != std::vector<int64_t>{0, 2, 3, 1}) {
    return false;
  }
  show_channels_last(node->output(), tensors_.at(x));
  return true;
}

// input, normalized shape, weight, bias, eps
bool Part::layer_norm(Node* node) {
  const Value* x = node->input(0);
  const auto over = constant_ints(node->input(1));
  const auto epsilon = constant_number(node->input(4));
  const bool over_channels =
      known<ChannelsLast>(x) || (inside(x) && dimensions_.at(tensors_.at(x)) == 2);
  if (!over_channels || !over || over->size() != 1 || !epsilon) return false;
  auto scale = channel_numbers(node->input(2), over->front(), 1);
  auto shift = channel_numbers(node->input(3), over->front(), 0);
  if (!scale || !shift) return false;
  finish_like(node, x,
              plan::Normalize{std::move(scale), std::move(shift), static_cast<float>(*epsilon)},
              {*elements(x)});
  return true;
}

// A linear layer over the channels of every pixel is a convolution of one pixel.
bool Part::pointwise(Node* node, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  const plan::Value x = *elements(node->input(0));
  const at::Tensor kernel = weight.view({weight.size(0), weight.size(1), 1, 1});
  const Multiplied what = multiplied(x, kernel);
  finish_like(node, node->input(0), convolve(kernel, bias, 1, what.rounding), {what.input});
  return true;
}

}  // namespace convship::ops::lowering
