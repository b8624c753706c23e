// Layers that change an image's sides, and those over groups of channels.
#include <cstdlib>
#include <utility>
#include <vector>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

// input, size, [align corners,] scales: two lists, one of which is none; or the size and
// two numbers.
bool Part::upsample(Node* node, bool bilinear) {
  using Way = plan::Upsample::Way;
  const std::size_t after = bilinear ? 3 : 2;
  if (node->inputs().size() <= after) return false;
  const auto given = inner(node->input(0), 4);
  if (!given) return false;
  const plan::Value x = *given;
  plan::Upsample layer{};
  layer.way = Way::nearest;
  if (bilinear) {
    const auto aligned = facts_.number(node->input(2));
    if (!aligned) return false;
    layer.way = *aligned != 0 ? Way::bilinear_aligned : Way::bilinear;
  }
  const auto size = facts_.numbers(node->input(1));
  if (size && size->size() != 2) return false;
  std::optional<Numbers> scales = facts_.numbers(node->input(after));
  if (node->inputs().size() == after + 2) {
    const auto first = facts_.formula(node->input(after)),
               second = facts_.formula(node->input(after + 1));
    if (!size || !first || !second) return false;
    scales = Numbers{*first, *second};
  }
  if (scales) {
    const auto usable = [](const Formula& scale) {
      return scale.real() || (scale.constant() && scale.constant()->isNone());
    };
    if (scales->size() != 2 || !usable((*scales)[0]) || !usable((*scales)[1])) return false;
    layer.scale_h = (*scales)[0].real();
    layer.scale_w = (*scales)[1].real();
  }
  if (size) {
    layer.height = measure((*size)[0]);
    layer.width = measure((*size)[1]);
  } else {
    if (!layer.scale_h || !layer.scale_w) return false;
    layer.height = scaled(x, 2, *layer.scale_h);
    layer.width = scaled(x, 3, *layer.scale_w);
  }
  finish(node, std::move(layer), {x}, 4);
  return true;
}

plan::Measure Part::scaled(plan::Value x, int64_t dimension, double scale) const {
  const auto rule = [extent = measure(*dimension_size(layers_.standard(x), dimension)),
                     scale](const std::vector<plan::Size>& sizes) {
    const double size = static_cast<double>(extent(sizes)) * scale;
    // Others are refused.
    return size > 0 && size < 0x1p30 ? static_cast<int64_t>(size) : 0;
  };
  return {0, rule};
}

// input, [left, right, top, bottom], mode, value; or a mode's own operator.
bool Part::pad(Node* node) {
  using Kind = plan::Pad::Kind;
  const auto amounts = facts_.numbers(node->input(1));
  if (!amounts || amounts->size() % 2 != 0) return false;
  plan::Pad layer{};
  const auto kind = node->kind();
  const auto mode = kind == c10::aten::pad ? constant_string(node->input(2)) : std::nullopt;
  if (mode == "reflect" || kind == c10::aten::reflection_pad2d) {
    layer.kind = Kind::reflect;
  } else if (mode == "replicate" || kind == c10::aten::replication_pad2d) {
    layer.kind = Kind::replicate;
  } else if (mode == "circular") {
    layer.kind = Kind::circular;
  } else if (mode == "constant" || kind == c10::aten::constant_pad_nd) {
    layer.kind = Kind::constant;
    const Value* value = node->input(node->inputs().size() - 1);
    const auto number = constant_number(value);
    if (!number && !is_none(value)) return false;
    layer.value = static_cast<float>(number.value_or(0));
  } else {
    return false;
  }
  Value* const given = node->input(0);
  if (!arranged(given) && !tensor(given, 4)) return false;
  Arrangement x = *arranged(given);
  const Dimensions whole = layers_.standard(x.value).dimensions;
  if (whole.size() != 4 || amounts->size() > 2 * x.rank() ||
      (amounts->size() == 2 && layer.kind != Kind::constant)) {
    return false;
  }
  std::vector<std::pair<std::size_t, std::size_t>> changed;  // of x and of an image
  for (std::size_t i = 0; 2 * i < amounts->size(); ++i) {
    const Formula &before = (*amounts)[2 * i], &behind = (*amounts)[2 * i + 1];
    const std::size_t d = x.rank() - 1 - i;
    if (before.integer() == 0 && behind.integer() == 0) continue;
    // Of several dimensions of one place only an image's own tell which side they are.
    if (x.dimensions[d].empty() && x.dimensions != whole) return false;
    const std::size_t side = x.dimensions == whole ? d : x.dimensions[d] == whole[2] ? 2 : 3;
    if (side < 2 || x.dimensions[d] != whole[side]) return false;
    (side == 2 ? layer.top : layer.left) = measure(before);
    (side == 2 ? layer.bottom : layer.right) = measure(behind);
    changed.emplace_back(d, side);
  }
  x.value = layers_.add(std::move(layer), {x.value}, 4);
  const Dimensions now = layers_.standard(x.value).dimensions;
  for (const auto& [d, side] : changed) x.dimensions[d] = now[side];
  show(node->output(), std::move(x));
  return true;
}

// input, shifts, dimensions: what leaves an image at one end comes in at the other.
bool Part::roll(Node* node) {
  const auto shifts = facts_.numbers(node->input(1)), over = facts_.numbers(node->input(2));
  auto x = arranged(node->input(0));
  if (!x || !shifts || !over || shifts->size() != over->size()) return false;
  const Dimensions whole = layers_.standard(x->value).dimensions;
  if (whole.size() != 4) return false;
  plan::Pad around{}, rest{};
  around.kind = plan::Pad::Kind::circular;
  rest.kind = plan::Pad::Kind::constant;
  for (std::size_t i = 0; i < over->size(); ++i) {
    const auto shift = (*shifts)[i].integer();
    const auto d = place_of((*over)[i].integer(), x->rank());
    if (!shift || !d) return false;
    const Axes& axes = x->dimensions[*d];
    const bool row = axes == whole[2];
    if (!row && axes != whole[3]) return false;
    const plan::Measure more{std::abs(*shift)}, less{-std::abs(*shift)};
    if (*shift > 0) {
      (row ? around.top : around.left) = more;
      (row ? rest.bottom : rest.right) = less;
    } else {
      (row ? around.bottom : around.right) = more;
      (row ? rest.top : rest.left) = less;
    }
  }
  const plan::Value wider = layers_.add(std::move(around), {x->value}, 4);
  const plan::Value rolled = layers_.add_like(x->value, std::move(rest), {wider});
  show(node->output(), {rolled, x->dimensions});
  return true;
}

bool Part::pixel_shuffle(Node* node) {
  const auto factor = facts_.number(node->input(1));
  const auto given = inner(node->input(0), 4);
  if (!factor || *factor < 1 || !given) return false;
  const plan::Value x = *given;
  const auto count = layers_.channels(x);
  if (!count || *factor > *count || *count % (*factor * *factor) != 0) {
    return false;
  }
  finish(node, plan::PixelShuffle{*factor}, {x}, 4);
  return true;
}

bool Part::pixel_unshuffle(Node* node) {
  const auto factor = facts_.number(node->input(1));
  const auto x = inner(node->input(0), 4);
  if (!factor || *factor < 1 || !x || !layers_.channels(*x)) return false;
  finish(node, plan::PixelUnshuffle{*factor}, {*x}, 4);
  return true;
}

// input, groups, weight, bias, epsilon, cudnn
bool Part::group_norm(Node* node) {
  const auto groups = facts_.number(node->input(1));
  return groups && normalize_groups(node, *groups, node->input(2), node->input(3), node->input(4));
}

// input, weight, bias, running mean and variance, whether the input's are used, momentum,
// epsilon, cudnn
bool Part::instance_norm(Node* node) {
  const auto x = inner(node->input(0), 4);
  if (!x || constant_int(node->input(5)) != 1) return false;
  const auto count = layers_.channels(*x);
  return count && normalize_groups(node, *count, node->input(1), node->input(2), node->input(7));
}

bool Part::normalize_groups(
    Node* node, int64_t groups, const Value* weight, const Value* bias, const Value* epsilon) {
  const auto given = inner(node->input(0), 4);
  if (!given) return false;
  const plan::Value x = *given;
  const auto count = layers_.channels(x);
  const auto small = constant_number(epsilon);
  if (!count || !small || groups < 1 || *count % groups != 0) {
    return false;
  }
  auto scale = channel_numbers(weight, *count, 1), shift = channel_numbers(bias, *count, 0);
  if (!scale || !shift) return false;
  finish(node,
         plan::GroupNorm{groups, std::move(scale), std::move(shift), static_cast<float>(*small)},
         {x}, 4);
  return true;
}

}  // namespace convship::ops::lowering
