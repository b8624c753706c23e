// Layers that change an image's sides, and those over groups of channels.
#include <algorithm>
#include <array>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

// input, size, [align corners,] scales: two lists, one of which is none; or the size and
// two numbers.
bool Part::upsample(Node* node, bool bilinear) {
  const std::size_t after = bilinear ? 3 : 2;
  if (node->inputs().size() <= after || !inside(node->input(0))) return false;
  const plan::Value x = tensors_.at(node->input(0));
  if (dimensions_.at(x) != 4) return false;
  plan::Upsample layer{};
  layer.way = plan::Upsample::Way::nearest;
  if (bilinear) {
    const auto aligned = number(node->input(2));
    if (!aligned) return false;
    layer.way =
        *aligned != 0 ? plan::Upsample::Way::bilinear_aligned : plan::Upsample::Way::bilinear;
  }
  const auto scale_of = [](const Formula& given) -> std::optional<double> {
    const c10::IValue* value = given.constant();
    if (!value || !(value->isDouble() || value->isInt())) return {};
    return value->toScalar().toDouble();
  };
  const auto size = numbers(node->input(1));
  if (node->inputs().size() == after + 2) {
    if (!size) return false;
    for (const auto& [scale, input] :
         {std::pair(&layer.scale_h, after), {&layer.scale_w, after + 1}}) {
      if (is_none(node->input(input))) continue;
      const auto given = formula(node->input(input));
      *scale = given ? scale_of(*given) : std::nullopt;
      if (!*scale) return false;
    }
  }
  if (size) {
    if (size->size() != 2) return false;
    layer.height = measure((*size)[0]);
    layer.width = measure((*size)[1]);
  } else {
    const auto scales = numbers(node->input(after));
    if (!scales || scales->size() != 2) return false;
    layer.scale_h = scale_of((*scales)[0]);
    layer.scale_w = scale_of((*scales)[1]);
    if (!layer.scale_h || !layer.scale_w) return false;
    const auto scaled = [&](int64_t dimension, double scale) {
      const auto rule = [extent = measure(*extent(x, dimension)),
                         scale](const std::vector<plan::Size>& sizes) {
        const double size = static_cast<double>(extent(sizes)) * scale;
        // Others are refused.
        return size > 0 && size < 0x1p30 ? static_cast<int64_t>(size) : 0;
      };
      return plan::Measure{0, rule};
    };
    layer.height = scaled(2, *layer.scale_h);
    layer.width = scaled(3, *layer.scale_w);
  }
  finish(node, std::move(layer), {x}, 4);
  return true;
}

// input, [left, right, top, bottom], mode, value; or a mode's own operator.
bool Part::pad(Node* node) {
  using Kind = plan::Pad::Kind;
  const auto amounts = numbers(node->input(1));
  if (!amounts || (amounts->size() != 2 && amounts->size() != 4)) return false;
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
  const auto x = tensor(node->input(0), 4);
  if (!x) return false;
  layer.left = measure((*amounts)[0]);
  layer.right = measure((*amounts)[1]);
  if (amounts->size() == 4) {
    layer.top = measure((*amounts)[2]);
    layer.bottom = measure((*amounts)[3]);
  } else if (layer.kind != Kind::constant) {
    return false;
  }
  finish(node, std::move(layer), {*x}, 4);
  return true;
}

bool Part::pixel_shuffle(Node* node) {
  const auto factor = number(node->input(1));
  if (!factor || *factor < 1 || !inside(node->input(0))) return false;
  const plan::Value x = tensors_.at(node->input(0));
  const auto count = channels(x);
  if (dimensions_.at(x) != 4 || !count || *factor > *count || *count % (*factor * *factor) != 0) {
    return false;
  }
  finish(node, plan::PixelShuffle{*factor}, {x}, 4);
  return true;
}

// input, groups, weight, bias, epsilon, cudnn
bool Part::group_norm(Node* node) {
  const auto groups = number(node->input(1));
  return groups && normalize_groups(node, *groups, node->input(2), node->input(3), node->input(4));
}

// input, weight, bias, running mean and variance, whether the input's are used, momentum,
// epsilon, cudnn
bool Part::instance_norm(Node* node) {
  if (!inside(node->input(0)) || constant_int(node->input(5)) != 1) return false;
  const auto count = channels(tensors_.at(node->input(0)));
  return count && normalize_groups(node, *count, node->input(1), node->input(2), node->input(7));
}

bool Part::normalize_groups(
    Node* node, int64_t groups, const Value* weight, const Value* bias, const Value* epsilon) {
  if (!inside(node->input(0))) return false;
  const plan::Value x = tensors_.at(node->input(0));
  const auto count = channels(x);
  const auto small = constant_number(epsilon);
  if (dimensions_.at(x) != 4 || !count || !small || groups < 1 || *count % groups != 0) {
    return false;
  }
  const auto numbers = [&](const Value* value,
                           float otherwise) -> std::shared_ptr<const std::vector<float>> {
    if (is_none(value)) return std::make_shared<const std::vector<float>>(*count, otherwise);
    const auto given = constant_weight(value, 1);
    if (!given || given->numel() != *count) return nullptr;
    const float* from = given->const_data_ptr<float>();
    return std::make_shared<const std::vector<float>>(from, from + *count);
  };
  auto scale = numbers(weight, 1), shift = numbers(bias, 0);
  if (!scale || !shift) return false;
  finish(node,
         plan::GroupNorm{groups, std::move(scale), std::move(shift), static_cast<float>(*small)},
         {x}, 4);
  return true;
}

// x + number, x - number; number * alpha.
bool Part::shift(Node* node, bool subtract, bool in_place) {
  if (known<Formula>(node->input(0)) || known<Formula>(node->input(1))) return compute(node);
  const auto by = constant_number(node->input(1));
  const auto alpha = node->inputs().size() == 3 ? constant_number(node->input(2)) : std::nullopt;
  if (!by || !alpha) return compute(node);
  return scale_by_number(node, node->input(0), 1, (subtract ? -1 : 1) * *by * *alpha, in_place);
}

bool Part::scale_by_number(Node* node, const Value* x, double scale, double shift, bool in_place) {
  const auto value = elements(x);
  const auto count = value ? channels(*value) : std::nullopt;
  if (!count || (in_place && !may_overwrite(x))) return false;
  const auto all = [&](double number) {
    return std::make_shared<const std::vector<float>>(*count, static_cast<float>(number));
  };
  plan::Affine layer{all(scale), all(shift)};
  if (in_place) {
    finish(node, std::move(layer), {*value}, dimensions_.at(*value), true);
  } else {
    finish_like(node, x, std::move(layer), {*value});
  }
  return true;
}

}  // namespace convship::ops::lowering
