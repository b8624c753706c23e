// What a graph computes of the sizes of images, where it must be known which ones will come: the
// side of a branch that is taken, and tables such as the masks of attention.
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

// Of all values, for one input of images.
std::optional<std::vector<plan::Size>> Part::expected_sizes(int64_t batch) const {
  if (inputs_.size() != 1 || layers_.dimensions(-1) != 4 ||
      inputs_[0]->node()->kind() != c10::prim::Param) {
    return {};
  }
  int64_t count = 3;
  for (const plan::Instruction& i : layers_) {
    const auto* conv = std::get_if<plan::Convolve>(&i.layer);
    if (!conv || i.inputs[0] != -1) continue;
    count = conv->shape.channels * conv->shape.groups;
    break;
  }
  try {
    return plan::infer_sizes(network({}), {{batch, count, expected_}});
  } catch (const std::invalid_argument&) {
    return {};
  }
}

bool Part::may_expect(const std::function<bool(const std::vector<plan::Size>&)>& holds) const {
  const auto sizes = expected_sizes(1);
  try {
    return !sizes || holds(*sizes);
  } catch (const std::invalid_argument&) {
    return false;
  }
}

std::optional<int64_t> Part::expect(const Formula& formula) {
  if (const auto number = formula.integer()) return number;
  if (formula.constant()) return {};
  const plan::Measure measured = measure(formula);
  std::optional<int64_t> number;
  for (const int64_t batch : {1, 2}) {
    const auto sizes = expected_sizes(batch);
    if (!sizes) return {};
    try {
      const int64_t found = measured(*sizes);
      if (number && *number != found) return {};
      number = found;
    } catch (const std::invalid_argument&) {
      return {};
    }
  }
  depends_on_sides_ = true;
  require([measured, number = *number](const auto& sizes) { return measured(sizes) == number; });
  return number;
}

// input, size, dtype, layout, device, pinned: of a tensor of the part.
bool Part::new_zeros(Node* node) {
  const auto shape = facts_.numbers(node->input(1));
  const auto is_usual = [&](std::size_t i, int64_t usual) {
    return facts_.is_none(node->input(i)) || constant_int(node->input(i)) == usual;
  };
  const auto device = facts_.formula(node->input(4));
  const bool on_cpu = facts_.is_none(node->input(4)) ||
                      (device && device->constant() && device->constant()->isDevice() &&
                       device->constant()->toDevice().is_cpu());
  if (!arranged(node->input(0)) || !shape || !on_cpu ||
      !is_usual(2, static_cast<int64_t>(at::kFloat)) ||
      !is_usual(3, static_cast<int64_t>(at::kStrided)) || !is_usual(5, 0)) {
    return false;
  }
  std::vector<int64_t> sizes;
  for (int64_t all = 1; const Formula& side : *shape) {
    constexpr int64_t kMost = int64_t{1} << 22;
    const auto number = expect(side);
    if (!number || *number < 1 || *number > kMost / all) return false;
    all *= *number;
    sizes.push_back(*number);
  }
  const at::Tensor table = at::zeros(sizes);
  tables_.insert(table.storage().data());
  return learn(node->output(), Formula(c10::IValue(table)));
}

namespace {

// Whether what the operator makes of such operands is small enough to keep, found out without
// making it.
bool is_small_table(const Node* node, const torch::jit::Stack& operands) {
  constexpr int64_t kMostBytes = int64_t{1} << 26;
  torch::jit::Stack stack;
  for (const c10::IValue& operand : operands) {
    if (operand.isTensorList()) {
      c10::List<at::Tensor> tables;
      for (const at::Tensor& table : operand.toTensorVector())
        tables.push_back(table.to(at::kMeta));
      stack.emplace_back(std::move(tables));
    } else {
      stack.push_back(operand.isTensor() ? operand.toTensor().to(at::kMeta) : operand);
    }
  }
  try {
    node->getOperation()(stack);
  } catch (const std::exception&) {
    return false;
  }
  return !stack.back().isTensor() ||
         static_cast<int64_t>(stack.back().toTensor().nbytes()) <= kMostBytes;
}

}  // namespace

// [begin,] end, [step,] dtype, layout, device, pinned: of few numbers.
bool Part::arange(Node* node) {
  constexpr std::size_t kOthers = 4, kStep = 2;
  constexpr double kMost = int64_t{1} << 22;
  if (node->inputs().size() <= kOthers) return false;
  for (std::size_t i = 0; i + kOthers < node->inputs().size(); ++i) {
    const auto given = facts_.formula(node->input(i));
    std::optional<double> number = given ? given->real() : std::nullopt;
    if (given && !number) {
      if (const auto expected = expect(*given)) number = static_cast<double>(*expected);
    }
    if (!number || !(std::abs(*number) <= kMost) || (i == kStep && std::abs(*number) < 1)) {
      return false;
    }
  }
  return compute_table(node);
}

bool Part::is_table(const Value* value) const {
  const auto found = facts_.find<Formula>(value) ? facts_.constant_tensor(value) : std::nullopt;
  return found && found->dim() > 0;
}

// Whatever LibTorch makes of one, in place, too: nobody else has its memory.
bool Part::compute_table(Node* node) {
  if (!is_deterministic(node)) return false;
  const c10::FunctionSchema* schema = node->maybeSchema();
  if (schema->is_mutable() &&
      !tables_.count(facts_.constant_tensor(node->input(0))->storage().data())) {
    return false;
  }
  torch::jit::Stack stack;
  for (const Value* input : node->inputs()) {
    auto given = facts_.operand(input);
    if (const auto list = given ? std::nullopt : facts_.numbers(input)) {
      std::vector<int64_t> sizes;
      for (const Formula& number : *list) {
        const auto expected = expect(number);
        if (!expected) return false;
        sizes.push_back(*expected);
      }
      given = Formula(c10::IValue(sizes));
    }
    if (given && !given->constant()) {
      const auto expected = expect(*given);
      given = expected ? std::optional(Formula(c10::IValue(*expected))) : std::nullopt;
    }
    if (!given) return false;
    const auto& type = schema->arguments()[stack.size()].type();
    stack.push_back(as_operand(*given->constant(), type->isSubtypeOf(*c10::TensorType::get())));
  }
  if (!schema->is_mutable() && !is_small_table(node, stack)) return false;
  try {
    node->getOperation()(stack);
  } catch (const std::exception&) {
    return false;  // LibTorch says what is wrong, where it is
  }
  if (stack.size() != 1) return false;
  tables_written_ = tables_written_ || schema->is_mutable();
  return learn(node->output(), Formula(stack.back()));
}

}  // namespace convship::ops::lowering
