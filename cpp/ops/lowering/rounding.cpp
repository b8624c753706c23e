// Narrower numbers in a graph of float32: values that are rounded on the way to
// a layer of weights.
#include "kernels/conv2d/rounding.h"

#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

Part::Multiplied Part::multiplied(plan::Value input, const at::Tensor& weight) const {
  if (input < 0) return {input, {}};
  const auto* round = std::get_if<plan::Round>(&layers_[input].layer);
  const int64_t rows = weight.size(0);
  const bool bfloat16 = round && round->rounding.kind == plan::Rounding::Kind::bfloat16;
  if (bfloat16 && !rounds_freely_) return {input, {}};  // a step of its own
  if (!round || !kernels::conv2d::are_rounded(weight.const_data_ptr<float>(), rows,
                                              weight.numel() / rows, round->rounding.kind)) {
    return {input, {}};
  }
  return {layers_[input].inputs[0], round->rounding};
}

bool Part::has_to_round(Value* value) {
  if (elements(value)) return true;
  // Conversions, then the layer.
  const Value* end = value;
  while (end->uses().size() == 1 &&
         (end->uses()[0].user->kind() == c10::aten::to ||
          end->uses()[0].user->kind() == c10::aten::fake_quantize_per_tensor_affine)) {
    end = end->uses()[0].user->output();
  }
  const bool matrix = end->uses().size() == 1 && end->uses()[0].user->kind() == c10::aten::linear;
  return tensor(value, matrix ? 2 : 4).has_value();
}

// input, dtype, non blocking, copy, memory format: to bfloat16 and back is
// rounding.
bool Part::convert(Node* node) {
  if (facts_.find<Formula>(node->input(0))) return compute(node);
  if (node->inputs().size() != 5 || !is_none(node->input(4)) || constant_int(node->input(3)) != 0) {
    return false;
  }
  const auto dtype = constant_int(node->input(1));
  if (dtype == static_cast<int64_t>(at::kBFloat16)) {
    if (!has_to_round(node->input(0))) return false;
    facts_.learn(node->output(), Narrowed{*elements(node->input(0)), node->input(0)});
    return true;
  }
  if (dtype != static_cast<int64_t>(at::kFloat)) return false;
  const auto* narrowed = facts_.find<Narrowed>(node->input(0));
  if (!narrowed) return identity(node, 0);
  const auto [x, tensor] = *narrowed;
  finish_like(node, tensor, plan::Round{{plan::Rounding::Kind::bfloat16}}, {x});
  return true;
}

// input, scale, zero point, lowest and highest level
bool Part::fake_quantize(Node* node) {
  const auto scale = constant_number(node->input(1));
  const auto zero_point = constant_int(node->input(2));
  if (!scale || !(*scale > 0) || !zero_point || *zero_point < 0 || *zero_point > 255 ||
      constant_int(node->input(3)) != 0 || constant_int(node->input(4)) != 255) {
    return false;
  }
  if (!has_to_round(node->input(0))) return false;
  const plan::Rounding rounding{plan::Rounding::Kind::int8, static_cast<float>(*scale),
                                static_cast<int32_t>(*zero_point)};
  finish_like(node, node->input(0), plan::Round{rounding}, {*elements(node->input(0))});
  return true;
}

}  // namespace convship::ops::lowering
