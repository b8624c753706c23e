// What a graph computes about shapes, known before any size is: it needs no
// layer.
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

std::optional<Formula> Part::formula(const Value* value) const {
  if (const auto* found = known<Formula>(value)) return *found;
  if (known_.count(value)) return {};
  if (auto given = constant(value)) return Formula(*std::move(given));
  return {};
}

std::optional<int64_t> Part::number(const Value* value) const {
  if (known_.count(value)) {
    const auto found = formula(value);
    return found ? found->integer() : std::nullopt;
  }
  return constant_int(value);
}

std::optional<Part::Numbers> Part::numbers(const Value* value) const {
  if (const auto* list = known<Numbers>(value)) return *list;
  if (const auto* sizes = known<SizesOf>(value)) {
    Numbers all;
    for (int64_t d = 0; d < dimensions_.at(sizes->value); ++d) {
      all.push_back(*extent(sizes->value, d));
    }
    return all;
  }
  const auto given = formula(value);
  const c10::IValue* list = given ? given->constant() : nullptr;
  if (!list || !(list->isIntList() || list->isDoubleList() || list->isBoolList())) return {};
  const auto elements = list->toList();
  Numbers all;
  for (std::size_t i = 0; i < elements.size(); ++i) all.emplace_back(elements.get(i));
  return all;
}

std::optional<int64_t> Part::channels(plan::Value value) const {
  if (value < 0) return {};
  const plan::Instruction& i = layers_[value];
  if (const auto* conv = std::get_if<plan::Convolve>(&i.layer)) return conv->shape.c_out;
  if (const auto* linear = std::get_if<plan::Linear>(&i.layer)) return linear->out;
  if (const auto* affine = std::get_if<plan::Affine>(&i.layer)) return affine->scale->size();
  if (const auto* norm = std::get_if<plan::Normalize>(&i.layer)) return norm->scale->size();
  if (const auto* conv = std::get_if<plan::TransposedConvolve>(&i.layer)) return conv->c_out;
  if (const auto* shuffle = std::get_if<plan::PixelShuffle>(&i.layer)) {
    const auto before = channels(i.inputs[0]);
    const int64_t pixels = shuffle->factor * shuffle->factor;
    return before ? std::optional(*before / pixels) : std::nullopt;
  }
  if (const auto* select = std::get_if<plan::Select>(&i.layer)) return select->from->size();
  if (std::holds_alternative<plan::AcrossChannels>(i.layer)) return 1;
  if (const auto* unflatten = std::get_if<plan::Unflatten>(&i.layer)) {
    const auto features = channels(i.inputs[0]);
    const int64_t pixels = unflatten->image.h * unflatten->image.w;
    return features ? std::optional(*features / pixels) : std::nullopt;
  }
  if (std::holds_alternative<plan::Add>(i.layer) ||
      std::holds_alternative<plan::Combine>(i.layer)) {
    const auto a = channels(i.inputs[0]), b = channels(i.inputs[1]);
    // One channel may be spread over those of the other, of which nothing is known.
    if (a && b) return std::max(*a, *b);
    const auto some = a ? a : b;
    return some && *some > 1 ? some : std::nullopt;
  }
  if (const auto* flatten = std::get_if<plan::Flatten>(&i.layer)) {
    if (flatten->features >= 0) return flatten->features;
    const auto count = channels(i.inputs[0]);
    const auto size = image(i.inputs[0]);
    return count && size ? std::optional(*count * size->h * size->w) : std::nullopt;
  }
  if (!std::holds_alternative<plan::Concatenate>(i.layer)) return channels(i.inputs[0]);
  int64_t sum = 0;
  for (const plan::Value input : i.inputs) {
    const auto some = channels(input);
    if (!some) return {};
    sum += *some;
  }
  return sum;
}

std::optional<Formula> Part::extent(plan::Value value, int64_t dimension) const {
  const int64_t dimensions = dimensions_.at(value);
  if (dimension < 0) dimension += dimensions;
  if (dimension < 0 || dimension >= dimensions) return {};
  if (dimensions == 3 && dimension == 2) return Formula(Extent{value, 3});  // of one row
  const auto count = dimension == 1 ? channels(value) : std::nullopt;
  if (count) return Formula(c10::IValue(*count));
  return Formula(Extent{value, dimension});
}

bool Part::learn(const Value* value, const std::optional<Formula>& known) {
  if (!known) return false;
  tensors_.erase(value);
  known_.insert_or_assign(value, *known);
  return true;
}

plan::Measure Part::measure(const Formula& formula) const {
  if (const auto number = formula.integer()) return {*number};
  return {0, [formula, count = input_count_](const std::vector<plan::Size>& sizes) {
            const auto extent_of = [&](const Extent& e) {
              const plan::Size& size = sizes[e.value < 0 ? -1 - e.value : e.value + *count];
              switch (e.dimension) {
                case 0:
                  return size.n;
                case 1:
                  return size.c;
                case 2:
                  return size.image.h;
                default:
                  return size.image.w;
              }
            };
            try {
              return formula.evaluate(extent_of).toScalar().toLong();
            } catch (const std::exception& error) {
              throw std::invalid_argument(error.what());
            }
          }};
}

// Of all dimensions or of one.
bool Part::size(Node* node) {
  Value* tensor = node->input(0);
  // The caller's images are often asked for their size first.
  if (!inside(tensor) && (tensor->node()->kind() != c10::prim::Param || !this->tensor(tensor, 4))) {
    return false;
  }
  const plan::Value x = tensors_.at(tensor);
  if (node->inputs().size() == 1) {
    known_[node->output()] = SizesOf{x};
    return true;
  }
  const auto dimension = number(node->input(1));
  return dimension && learn(node->output(), extent(x, *dimension));
}

// Of a tensor, its dimensions; of a list.
bool Part::length(Node* node) {
  const Value* input = node->input(0);
  if (inside(input)) {
    return learn(node->output(), Formula(c10::IValue(dimensions_.at(tensors_.at(input)))));
  }
  const auto list = numbers(input);
  return list && learn(node->output(), Formula(c10::IValue(static_cast<int64_t>(list->size()))));
}

// What is known of the input is known of the output: tracing writes a number as a
// tensor and back.
bool Part::pass_on(Node* node) {
  return known_.count(node->input(0)) && alias(node->output(), node->input(0));
}

bool Part::alias(const Value* to, const Value* from) {
  if (inside(from)) {
    const plan::Value x = tensors_.at(from);
    bind(to, x, dimensions_.at(x));
    return true;
  }
  if (const auto found = formula(from)) return learn(to, found);
  const auto found = known_.find(from);
  if (found == known_.end()) return false;
  const Known same = found->second;
  tensors_.erase(to);
  known_.insert_or_assign(to, same);
  aliased_.insert(to);
  aliased_.insert(from);
  return true;
}

// `is None` of a tensor of the part.
bool Part::is_nothing(Node* node, bool negated) {
  if (inside(node->input(0)) && is_none(node->input(1))) {
    return learn(node->output(), Formula(c10::IValue(negated)));
  }
  return compute(node);
}

// Of numbers that are known, or will be once sizes are. What has nothing to do with the
// part's tensors is left to LibTorch, unless it is a constant's.
bool Part::compute(Node* node) {
  if (node->outputs().size() != 1) return false;
  std::vector<Formula> operands;
  bool mine = false;
  for (const Value* input : node->inputs()) {
    const auto operand = formula(input);
    if (!operand) return false;
    mine = mine || known_.count(input);
    operands.push_back(*operand);
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
