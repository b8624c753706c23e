// Functions of each value by itself.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using kernels::conv2d::Activation;
using torch::jit::Node;
using torch::jit::Value;

namespace {

// Operators of one tensor and nothing else.
constexpr auto kSimple = std::to_array<std::pair<std::string_view, Activation>>({
    {"aten::relu", Activation::relu},
    {"aten::relu6", Activation::relu6},
    {"aten::sigmoid", Activation::sigmoid},
    {"aten::silu", Activation::silu},
    {"aten::hardswish", Activation::hardswish},
    {"aten::hardsigmoid", Activation::hardsigmoid},
    {"aten::tanh", Activation::tanh},
    {"aten::mish", Activation::mish},
    {"aten::abs", Activation::abs},
    {"aten::erf", Activation::erf},
    {"aten::exp", Activation::exp},
    {"aten::log", Activation::log},
    {"aten::square", {Activation::power, 2}},
    {"aten::sqrt", {Activation::power, 0.5f}},
    {"aten::rsqrt", {Activation::power, -0.5f}},
    {"aten::reciprocal", {Activation::power, -1}},
});

}  // namespace

// Nothing where the operator is no such function. Names of those that write into their
// operand end in an underscore.
std::optional<bool> Part::translate_activation(Node* node, std::string_view kind) {
  const bool in_place = kind.ends_with('_');
  if (in_place) kind.remove_suffix(1);
  const auto* simple = std::find_if(kSimple.begin(), kSimple.end(),
                                    [&](const auto& entry) { return entry.first == kind; });
  if (simple != kSimple.end()) {
    return activation(node, simple->second, in_place) || compute(node);
  }
  if (kind == "aten::leaky_relu") return leaky_relu(node, in_place);
  if (kind == "aten::elu" || kind == "aten::selu") return elu(node, in_place);
  if (kind == "aten::celu") return celu(node, in_place);
  if (kind == "aten::rrelu") return randomized_relu(node, in_place);
  if (kind == "aten::hardtanh" || kind == "aten::clamp") {
    return clamp(node, in_place) || compute(node);
  }
  if (kind == "aten::pow") return power(node, in_place) || compute(node);
  if (in_place) return {};
  if (kind == "aten::gelu") return gelu(node);
  if (kind == "aten::softplus") return softplus(node);
  if (kind == "aten::prelu") return prelu(node);
  return {};
}

bool Part::activation(Node* node, Activation activation, bool in_place) {
  return finish_each(node, node->input(0), plan::Activate{activation}, in_place);
}

bool Part::gelu(Node* node) {
  const auto approximate = constant_string(node->input(1));
  if (approximate == "none") return activation(node, Activation::gelu, false);
  return approximate == "tanh" && activation(node, Activation::gelu_tanh, false);
}

bool Part::clamp(Node* node, bool in_place) {
  if (node->inputs().size() != 3) return false;
  const auto low = constant_number(node->input(1)), high = constant_number(node->input(2));
  if (low == 0.0 && high == 6.0) return activation(node, Activation::relu6, in_place);
  if (low == 0.0 && is_none(node->input(2))) return activation(node, Activation::relu, in_place);
  if ((!low && !is_none(node->input(1))) || (!high && !is_none(node->input(2)))) return false;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto is_float = [](double bound) {
    return std::isinf(bound) || std::isfinite(static_cast<float>(bound));
  };
  if (!is_float(low.value_or(0)) || !is_float(high.value_or(0))) return false;
  const float least = low ? static_cast<float>(*low) : -kInfinity;
  const float most = high ? static_cast<float>(*high) : kInfinity;
  return activation(node, {Activation::clamp, least, most}, in_place);
}

bool Part::leaky_relu(Node* node, bool in_place) {
  const auto slope = constant_number(node->input(1));
  if (!slope) return false;
  return activation(node, {Activation::leaky_relu, static_cast<float>(*slope)}, in_place);
}

// input, beta, threshold
bool Part::softplus(Node* node) {
  return constant_number(node->input(1)) == 1.0 && constant_number(node->input(2)) == 20.0 &&
         activation(node, Activation::softplus, false);
}

// input, alpha, scale, input scale; of selu the input alone.
bool Part::elu(Node* node, bool in_place) {
  double alpha = 1.6732632423543772848170429916717, scale = 1.0507009873554804934193349852946;
  if (node->inputs().size() == 4) {
    const auto a = constant_number(node->input(1)), b = constant_number(node->input(2));
    if (!a || !b || constant_number(node->input(3)) != 1.0) return false;
    if (!std::isfinite(*a) || !std::isfinite(*b)) return false;
    alpha = *a;
    scale = *b;
  }
  return activation(node,
                    {Activation::elu, static_cast<float>(alpha * scale), static_cast<float>(scale)},
                    in_place);
}

// max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0)
bool Part::celu(Node* node, bool in_place) {
  return constant_number(node->input(1)) == 1.0 &&
         activation(node, {Activation::elu, 1, 1}, in_place);
}

// input, lower and upper slope, training, generator: leaky where it does not train.
bool Part::randomized_relu(Node* node, bool in_place) {
  const auto low = constant_number(node->input(1)), high = constant_number(node->input(2));
  if (!low || !high || !(*low <= *high) || constant_int(node->input(3)) != 0) return false;
  const auto slope = static_cast<float>((*low + *high) / 2);
  return activation(node, {Activation::leaky_relu, slope}, in_place);
}

bool Part::prelu(Node* node) {
  const auto slope = constant_weight(node->input(1), 1);
  if (!slope) return false;
  if (slope->numel() == 1) {
    return activation(node, {Activation::leaky_relu, slope->item<float>()}, false);
  }
  const Value* x = node->input(0);
  if (!inside(x)) return false;
  finish(node, plan::Slope{channel_numbers(node->input(1), slope->numel(), 0)}, {tensors_.at(x)},
         layers_.dimensions(tensors_.at(x)));
  return true;
}

// Of a tensor and a number, which may be a constant of one value (a learned exponent).
bool Part::power(Node* node, bool in_place) {
  // Larger ones leave float32's range but next to 1; the kernel's sums do not overflow.
  constexpr double kMost = 1000;
  const auto x = arranged(node->input(0));
  auto exponent = facts_.real(node->input(1));
  const auto given = constant(node->input(1));
  if (!exponent && x && given && given->isTensor()) {
    const auto all = constant_weight(node->input(1), given->toTensor().dim());
    if (all && all->numel() == 1 && all->dim() <= static_cast<int64_t>(x->rank())) {
      exponent = all->item<float>();
    }
  }
  if (!exponent || *exponent == 0 || !(std::abs(*exponent) <= kMost)) return false;
  return activation(node, {Activation::power, static_cast<float>(*exponent)}, in_place);
}

plan::Value Part::squares(plan::Value x) {
  return layers_.add_like(x, plan::Activate{{Activation::power, 2}}, {x});
}

plan::Value Part::roots(plan::Value x) {
  return layers_.add_like(x, plan::Activate{{Activation::power, 0.5f}}, {x});
}

}  // namespace convship::ops::lowering
