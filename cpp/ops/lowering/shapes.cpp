// What a graph computes about shapes, known before any size is: it needs no
// layer.
#include <stdexcept>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

bool Part::learn(const Value* value, const std::optional<Formula>& known) {
  if (!known) return false;
  tensors_.erase(value);
  facts_.learn(value, *known);
  return true;
}

plan::Measure Part::measure(const Formula& formula) const {
  if (const auto number = formula.integer()) return {*number};
  const Extent* const extent = formula.extent();
  const auto fixed = extent ? lowering::count(extent->axes) : std::nullopt;
  if (fixed) return {*fixed};
  return {0, [formula, count = input_count_](const std::vector<plan::Size>& sizes) {
            const auto extent_of = [&](const Extent& e) {
              return lowering::count(e.axes, sizes[e.value < 0 ? -1 - e.value : e.value + *count]);
            };
            try {
              return formula.evaluate(extent_of).toScalar().toLong();
            } catch (const std::exception& error) {
              throw std::invalid_argument(error.what());
            }
          }};
}

std::vector<plan::Measure> Part::measures(const Numbers& numbers) const {
  std::vector<plan::Measure> all;
  for (const Formula& number : numbers) all.push_back(measure(number));
  return all;
}

// Of all dimensions or of one.
bool Part::size(Node* node) {
  Value* const given = node->input(0);
  // The caller's images are often asked for their size first.
  if (!arranged(given) && given->node()->kind() == c10::prim::Param) tensor(given, 4);
  auto x = arranged(given);
  if (const auto* repeated = facts_.find<Repeated>(given); repeated && node->inputs().size() == 2) {
    const auto d = place_of(facts_.number(node->input(1)), repeated->constant.dim());
    if (!d) return false;
    if (*d == 0) return learn(node->output(), repeated->times);
    const int64_t number = repeated->constant.size(static_cast<int64_t>(*d));
    return learn(node->output(), Formula(c10::IValue(number)));
  }
  if (!x) return false;
  if (node->inputs().size() == 1) {
    facts_.learn(node->output(), SizesOf{*std::move(x)});
    return true;
  }
  const auto dimension = facts_.number(node->input(1));
  return dimension && learn(node->output(), dimension_size(*x, *dimension));
}

// Of a tensor, its dimensions; of a list.
bool Part::length(Node* node) {
  const Value* input = node->input(0);
  if (const auto x = arranged(input)) {
    return learn(node->output(), Formula(c10::IValue(static_cast<int64_t>(x->rank()))));
  }
  const auto list = facts_.numbers(input);
  if (!list) return compute(node);  // of a text
  return learn(node->output(), Formula(c10::IValue(static_cast<int64_t>(list->size()))));
}

// What is known of the input is known of the output: tracing writes a number as a
// tensor and back.
bool Part::pass_on(Node* node) {
  return facts_.has(node->input(0)) && alias(node->output(), node->input(0));
}

bool Part::alias(const Value* to, const Value* from) {
  if (inside(from)) {
    const plan::Value x = tensors_.at(from);
    bind(to, x, layers_.dimensions(x));
    return true;
  }
  if (const auto found = facts_.formula(from)) return learn(to, found);
  if (!facts_.has(from)) return false;
  tensors_.erase(to);
  facts_.alias(to, from);
  return true;
}

// Of a tensor of the part and None, or two of its tensors.
bool Part::is(Node* node, bool negated) {
  const auto a = arranged(node->input(0)), b = arranged(node->input(1));
  if (a && is_none(node->input(1))) return learn(node->output(), Formula(c10::IValue(negated)));
  if (!a || !b) return compute(node);
  const bool same = a->value == b->value && a->dimensions == b->dimensions;
  return learn(node->output(), Formula(c10::IValue(same != negated)));
}

bool Part::message(Node* node) {
  facts_.learn(node->output(), Message{});
  return true;
}

// Of what plans take: others are answered by LibTorch.
bool Part::property(Node* node, std::string_view kind) {
  if (!arranged(node->input())) return compute(node);
  if (kind == "prim::dtype") {
    return learn(node->output(), Formula(c10::IValue(static_cast<int64_t>(at::kFloat))));
  }
  if (kind == "prim::device")
    return learn(node->output(), Formula(c10::IValue(at::Device(at::kCPU))));
  if (kind == "prim::layout") {
    return learn(node->output(), Formula(c10::IValue(static_cast<int64_t>(at::kStrided))));
  }
  return learn(node->output(), Formula(c10::IValue(false)));
}

// Of numbers that are known, or will be once sizes are. What has nothing to do with the
// part's tensors is left to LibTorch, unless it is a constant's.
bool Part::compute(Node* node) {
  if (node->outputs().size() != 1) return false;
  std::vector<Formula> operands;
  bool mine = false;
  for (const Value* input : node->inputs()) {
    const auto found = facts_.operand(input);
    if (!found) return false;
    mine = mine || facts_.has(input);
    operands.push_back(*found);
  }
  // Tracing writes a number as a tensor, and back.
  if (node->kind() == c10::aten::Int && operands.size() == 1) {
    if (operands[0].extent()) return learn(node->output(), operands[0]);
    if (const auto n = operands[0].integer())
      return learn(node->output(), Formula(c10::IValue(*n)));
  }
  const bool number = !node->output()->type()->isSubtypeOf(*c10::TensorType::get());
  return (mine || number) && learn(node->output(), Formula::apply(node, std::move(operands)));
}

}  // namespace convship::ops::lowering
