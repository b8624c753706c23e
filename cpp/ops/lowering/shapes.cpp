// What a graph computes about shapes, known before any size is: it needs no
// layer.
#include <algorithm>
#include <string_view>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

std::optional<int64_t> Part::number(const Value* value) const {
  if (const auto* n = known<int64_t>(value)) return *n;
  return known_.count(value) ? std::nullopt : constant_int(value);
}

std::optional<Part::Numbers> Part::numbers(const Value* value) const {
  if (const auto* list = known<Numbers>(value)) return *list;
  const auto given = constant_ints(value);
  if (!given) return {};
  return Numbers(given->begin(), given->end());
}

std::optional<int64_t> Part::channels(plan::Value value) const {
  if (value < 0) return {};
  const plan::Instruction& i = layers_[value];
  if (const auto* conv = std::get_if<plan::Convolve>(&i.layer)) return conv->shape.c_out;
  if (const auto* linear = std::get_if<plan::Linear>(&i.layer)) return linear->out;
  if (const auto* affine = std::get_if<plan::Affine>(&i.layer)) return affine->scale->size();
  if (const auto* norm = std::get_if<plan::Normalize>(&i.layer)) return norm->scale->size();
  if (const auto* select = std::get_if<plan::Select>(&i.layer)) return select->from->size();
  if (const auto* flatten = std::get_if<plan::Flatten>(&i.layer)) {
    return flatten->features < 0 ? std::nullopt : std::optional(flatten->features);
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

std::optional<Part::Number> Part::extent(plan::Value value, int64_t dimension) const {
  const int64_t dimensions = dimensions_.at(value);
  if (dimension < 0) dimension += dimensions;
  if (dimension < 0 || dimension >= dimensions) return {};
  if (dimension == 0) return BatchSize{};
  if (dimension > 1) return Side{value, dimension};
  const auto count = channels(value);
  if (!count) return {};
  return *count;
}

bool Part::learn(const Value* value, const std::optional<Number>& number) {
  if (!number) return false;
  std::visit([&](const auto& n) { known_[value] = n; }, *number);
  return true;
}

// Of all dimensions or of one.
bool Part::size(Node* node) {
  if (!inside(node->input(0))) return false;
  const plan::Value x = tensors_.at(node->input(0));
  if (node->inputs().size() == 1) {
    known_[node->output()] = SizesOf{x};
    return true;
  }
  const auto dimension = constant_int(node->input(1));
  return dimension && learn(node->output(), extent(x, *dimension));
}

// Of a tensor or of its sizes.
bool Part::length(Node* node) {
  const Value* input = node->input(0);
  if (inside(input)) {
    known_[node->output()] = dimensions_.at(tensors_.at(input));
    return true;
  }
  const auto* sizes = known<SizesOf>(input);
  if (!sizes) return false;
  known_[node->output()] = dimensions_.at(sizes->value);
  return true;
}

// Sizes as numbers; a list of tensors as the tensors.
bool Part::unpack(Node* node) {
  const auto outputs = node->outputs();
  if (const auto* sizes = known<SizesOf>(node->input())) {
    const plan::Value x = sizes->value;
    if (dimensions_.at(x) != static_cast<int64_t>(outputs.size())) return false;
    for (std::size_t d = 0; d < outputs.size(); ++d) {
      learn(outputs[d], extent(x, static_cast<int64_t>(d)));
    }
    return true;
  }
  const auto* pieces = known<Pieces>(node->input());
  if (!pieces || pieces->size() != outputs.size()) return false;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    bind(outputs[i], (*pieces)[i], dimensions_.at((*pieces)[i]));
  }
  return true;
}

bool Part::item(Node* node) {
  const auto index = constant_int(node->input(1));
  if (!index) return false;
  if (const auto* sizes = known<SizesOf>(node->input(0))) {
    return learn(node->output(), extent(sizes->value, *index));
  }
  const auto* pieces = known<Pieces>(node->input(0));
  if (!pieces) return false;
  const auto count = static_cast<int64_t>(pieces->size());
  const int64_t at = *index < 0 ? *index + count : *index;
  if (at < 0 || at >= count) return false;
  const plan::Value piece = (*pieces)[at];
  bind(node->output(), piece, dimensions_.at(piece));
  return true;
}

// What is known of the input is known of the output: tracing writes a number as a
// tensor and back.
bool Part::pass_on(Node* node) {
  const auto found = known_.find(node->input(0));
  if (found == known_.end()) return false;
  const Known same = found->second;
  known_[node->output()] = same;
  return true;
}

bool Part::divide(Node* node) {
  const auto* a = known<int64_t>(node->input(0));
  const auto b = number(node->input(1));
  if (!a || !b || *a < 0 || *b < 1) return false;
  const int64_t quotient = *a / *b;
  known_[node->output()] = quotient;
  return true;
}

bool Part::compare(Node* node) {
  if (!known_.count(node->input(0)) && !known_.count(node->input(1))) return false;
  const auto a = number(node->input(0)), b = number(node->input(1));
  if (!a || !b) return false;
  const std::string_view kind = node->kind().toQualString();
  const bool holds = kind == "aten::gt"   ? *a > *b
                     : kind == "aten::ge" ? *a >= *b
                     : kind == "aten::lt" ? *a < *b
                     : kind == "aten::le" ? *a <= *b
                     : kind == "aten::eq" ? *a == *b
                                          : *a != *b;
  known_[node->output()] = static_cast<int64_t>(holds);
  return true;
}

bool Part::list(Node* node) {
  if (node->output()->type()->isSubtypeOf(*c10::ListType::ofTensors())) {
    const auto inputs = node->inputs();
    if (std::none_of(inputs.begin(), inputs.end(), [&](Value* v) { return inside(v); })) {
      return false;
    }
    known_[node->output()] = Tensors(inputs.begin(), inputs.end());
    return true;
  }
  Numbers numbers;
  bool mine = false;
  for (Value* value : node->inputs()) {
    mine = mine || known_.count(value);
    if (known<BatchSize>(value)) {
      numbers.emplace_back(BatchSize{});
    } else if (const auto* side = known<Side>(value)) {
      numbers.emplace_back(*side);
    } else if (const auto n = number(value)) {
      numbers.emplace_back(*n);
    } else {
      return false;
    }
  }
  if (!mine) return false;
  known_[node->output()] = std::move(numbers);
  return true;
}

// Of a condition that is known, to a block that computes nothing.
bool Part::branch(Node* node) {
  if (!known_.count(node->input(0))) return false;
  const auto holds = number(node->input(0));
  if (!holds || !node->outputs().empty()) return false;
  const auto* block = node->blocks().at(*holds != 0 ? 0 : 1);
  return std::all_of(block->nodes().begin(), block->nodes().end(),
                     [](const Node* inner) { return inner->kind() == c10::prim::Constant; });
}

}  // namespace convship::ops::lowering
