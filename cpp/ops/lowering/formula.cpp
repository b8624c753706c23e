#include "ops/lowering/formula.h"

#include <torch/csrc/jit/runtime/operator.h>

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <variant>

#include "ops/lowering/constants.h"

namespace convship::ops::lowering {

struct Formula::Content {
  struct Applied {
    mutable torch::jit::Operation operation;  // its call is not const
    std::vector<bool> takes_tensor;
    std::vector<Formula> operands;
    int64_t factors;
  };
  std::variant<c10::IValue, Extent, Applied> is;
};

Formula::Formula(c10::IValue constant)
    : content_(std::make_shared<const Content>(Content{std::move(constant)})) {}

Formula::Formula(Extent extent)
    : content_(std::make_shared<const Content>(Content{std::move(extent)})) {}

std::optional<Formula> Formula::apply(torch::jit::Node* node, std::vector<Formula> operands) {
  const c10::FunctionSchema* schema = node->maybeSchema();
  if (!is_deterministic(node) || schema->is_mutable() ||
      schema->arguments().size() != operands.size()) {
    return {};
  }
  Content::Applied applied{node->getOperation(), {}, {}, 1};
  for (const c10::Argument& argument : schema->arguments()) {
    applied.takes_tensor.push_back(argument.type()->isSubtypeOf(*c10::TensorType::get()));
  }
  const bool known = std::all_of(operands.begin(), operands.end(),
                                 [](const Formula& f) { return f.constant() != nullptr; });
  if (node->kind() == c10::aten::mul || node->kind() == c10::aten::Int) {
    constexpr int64_t kMost = 16;  // a square of a square and so on has more than can be counted
    applied.factors = 0;
    for (const Formula& operand : operands) applied.factors += operand.factors();
    applied.factors = std::min(applied.factors, kMost);
  }
  applied.operands = std::move(operands);
  Formula made(std::make_shared<const Content>(Content{std::move(applied)}));
  if (!known) return made;
  try {
    return Formula(made.evaluate([](const Extent&) { return int64_t{0}; }));
  } catch (const std::exception&) {
    return {};  // LibTorch says what is wrong, where it is
  }
}

const c10::IValue* Formula::constant() const { return std::get_if<c10::IValue>(&content_->is); }

std::optional<int64_t> Formula::integer() const {
  const c10::IValue* value = constant();
  if (value && value->isInt()) return value->toInt();
  if (value && value->isBool()) return value->toBool() ? 1 : 0;
  return {};
}

std::optional<double> Formula::real() const {
  const c10::IValue* value = constant();
  if (!value) return {};
  // As tracing writes them.
  if (value->isTensor() && value->toTensor().dim() == 0 &&
      c10::isFloatingType(value->toTensor().scalar_type())) {
    return value->toTensor().item<double>();
  }
  if (!value->isDouble() && !value->isInt()) return {};
  return value->toScalar().toDouble();
}

const Extent* Formula::extent() const { return std::get_if<Extent>(&content_->is); }

int64_t Formula::factors() const {
  if (constant()) return 0;
  if (const Extent* e = extent()) {
    const auto tells = [](const Axis& axis) { return !axis.count; };
    return std::count_if(e->axes.begin(), e->axes.end(), tells);
  }
  const auto* applied = std::get_if<Content::Applied>(&content_->is);
  return applied ? applied->factors : 1;
}

// Each formula once, however many others read it.
class Formula::Evaluation {
 public:
  explicit Evaluation(const std::function<int64_t(const Extent&)>& extent_of)
      : extent_of_(extent_of) {}

  c10::IValue operator()(const Formula& formula) {
    if (const c10::IValue* value = formula.constant()) return *value;
    if (const Extent* e = formula.extent()) return extent_of_(*e);
    const auto found = done_.find(formula.content_.get());
    if (found != done_.end()) return found->second;
    return done_[formula.content_.get()] = apply(std::get<Content::Applied>(formula.content_->is));
  }

 private:
  c10::IValue apply(const Content::Applied& applied) {
    torch::jit::Stack stack;
    for (std::size_t i = 0; i < applied.operands.size(); ++i) {
      stack.push_back(as_operand((*this)(applied.operands[i]), applied.takes_tensor[i]));
    }
    applied.operation(stack);
    c10::IValue result = stack.back();
    if (result.isTensor() && result.toTensor().dim() == 0 &&
        c10::isIntegralType(result.toTensor().scalar_type(), false)) {
      return result.toTensor().item<int64_t>();
    }
    return result;
  }

  const std::function<int64_t(const Extent&)>& extent_of_;
  std::unordered_map<const Content*, c10::IValue> done_;
};

c10::IValue Formula::evaluate(const std::function<int64_t(const Extent&)>& extent_of) const {
  return Evaluation(extent_of)(*this);
}

std::optional<Formula> dimension_size(const Arrangement& tensor, int64_t dimension) {
  const auto d = place_of(dimension, tensor.rank());
  if (!d) return {};
  const Axes& axes = tensor.dimensions[*d];
  if (const auto number = count(axes)) return Formula(c10::IValue(*number));
  return Formula(Extent{tensor.value, axes});
}

std::vector<Formula> sizes_of(const Arrangement& tensor) {
  std::vector<Formula> all;
  for (std::size_t d = 0; d < tensor.rank(); ++d) {
    all.push_back(*dimension_size(tensor, static_cast<int64_t>(d)));
  }
  return all;
}

}  // namespace convship::ops::lowering
