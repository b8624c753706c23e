// Lists and dictionaries of a graph: of numbers and tensors, made, changed and taken apart.
#include <algorithm>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

// Sizes as numbers; a list of tensors as the tensors.
bool Part::unpack(Node* node) {
  const auto outputs = node->outputs();
  if (const auto* pieces = facts_.find<Pieces>(node->input())) {
    if (pieces->size() != outputs.size()) return false;
    const Pieces all = *pieces;
    for (std::size_t i = 0; i < outputs.size(); ++i) show(outputs[i], all[i]);
    return true;
  }
  if (const auto* tensors = facts_.find<Tensors>(node->input())) {
    const Tensors all = *tensors;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (i >= all.size() || !arranged(all[i]) || !alias(outputs[i], all[i])) return false;
    }
    return all.size() == outputs.size();
  }
  const auto list = facts_.numbers(node->input());
  if (!facts_.has(node->input()) || !list || list->size() != outputs.size()) return false;
  for (std::size_t i = 0; i < outputs.size(); ++i) learn(outputs[i], (*list)[i]);
  return true;
}

bool Part::item(Node* node) {
  if (const auto* names = facts_.find<Dictionary>(node->input(0))) {
    const auto found = names->find(constant_string(node->input(1)).value_or(""));
    return found != names->end() && alias(node->output(), found->second);
  }
  const auto index = facts_.number(node->input(1));
  if (!index) return false;
  const auto place = [&](std::size_t count) -> std::optional<std::size_t> {
    const int64_t at = *index < 0 ? *index + static_cast<int64_t>(count) : *index;
    if (at < 0 || at >= static_cast<int64_t>(count)) return {};
    return static_cast<std::size_t>(at);
  };
  if (const auto* pieces = facts_.find<Pieces>(node->input(0))) {
    const auto at = place(pieces->size());
    if (!at) return false;
    show(node->output(), Arrangement((*pieces)[*at]));
    return true;
  }
  if (const auto* tensors = facts_.find<Tensors>(node->input(0))) {
    const auto at = place(tensors->size());
    return at && arranged((*tensors)[*at]) && alias(node->output(), (*tensors)[*at]);
  }
  const auto list = facts_.numbers(node->input(0));
  const auto at = list ? place(list->size()) : std::nullopt;
  return at && learn(node->output(), (*list)[*at]);
}

bool Part::list(Node* node) {
  if (node->output()->type()->isSubtypeOf(*c10::ListType::ofTensors())) {
    const auto inputs = node->inputs();
    const auto is_mine = [&](Value* v) { return arranged(v) || facts_.find<Scores>(v); };
    const auto is_known = [&](Value* v) { return facts_.constant_tensor(v).has_value(); };
    if (std::all_of(inputs.begin(), inputs.end(), is_known) &&
        std::any_of(inputs.begin(), inputs.end(), [&](Value* v) { return is_table(v); })) {
      Numbers tables;
      for (const Value* input : inputs) tables.push_back(*facts_.formula(input));
      facts_.learn(node->output(), std::move(tables));
      return true;
    }
    if (!inputs.empty() && (in_loop(node) || std::none_of(inputs.begin(), inputs.end(), is_mine))) {
      return false;
    }
    facts_.learn(node->output(), Tensors(inputs.begin(), inputs.end()));
    return true;
  }
  Numbers all;
  for (const Value* value : node->inputs()) {
    const auto found = facts_.formula(value);
    if (!found) return false;
    all.push_back(*found);
  }
  facts_.learn(node->output(), std::move(all));
  return true;
}

// An empty one, which torchvision's networks for segmentation collect results in.
bool Part::dictionary(Node* node) {
  if (!node->inputs().empty() || is_returned(node->output())) return false;
  const auto type = node->output()->type()->cast<c10::DictType>();
  if (!type || type->getKeyType() != c10::StringType::get() ||
      !type->getValueType()->isSubtypeOf(*c10::TensorType::get())) {
    return false;
  }
  facts_.learn(node->output(), Dictionary{});
  return true;
}

bool Part::set_item(Node* node) {
  if (auto* list = facts_.find<Numbers>(node->input(0))) {
    const auto at = facts_.number(node->input(1));
    const auto number = facts_.formula(node->input(2));
    const bool other = facts_.is_aliased(node->input(0)) || in_loop(node);
    if (other || !at || *at < 0 || *at >= static_cast<int64_t>(list->size()) || !number ||
        !node->output()->uses().empty()) {
      return false;
    }
    (*list)[*at] = *number;
    return true;
  }
  const auto name = constant_string(node->input(1));
  auto* names = facts_.find<Dictionary>(node->input(0));
  if (!names || facts_.is_aliased(node->input(0)) || !name || !inside(node->input(2)) ||
      in_loop(node)) {
    return false;
  }
  (*names)[*name] = node->input(2);
  return true;
}

// One list, or two.
bool Part::join_lists(Node* node) {
  if (arranged(node->input(0))) return false;
  if (node->output()->type()->isSubtypeOf(*c10::ListType::ofTensors())) return join_tensors(node);
  Numbers all;
  for (const Value* input : node->inputs()) {
    const auto list = facts_.numbers(input);
    if (!list) return compute(node);
    all.insert(all.end(), list->begin(), list->end());
  }
  facts_.learn(node->output(), std::move(all));
  return true;
}

bool Part::join_tensors(Node* node) {
  Pieces all;
  for (const Value* input : node->inputs()) {
    const auto pieces = pieces_in(input);
    if (!pieces) return false;
    all.insert(all.end(), pieces->begin(), pieces->end());
  }
  // By what they are now: nothing may be written over them.
  for (const Arrangement& each : all) layers_.mark_shown(each.value);
  facts_.learn(node->output(), std::move(all));
  return true;
}

// Made, or taken apart.
bool Part::tuple(Node* node) {
  if (node->kind() == c10::prim::TupleConstruct) {
    const auto inputs = node->inputs();
    facts_.learn(node->output(), Tuple{{inputs.begin(), inputs.end()}});
    return std::any_of(inputs.begin(), inputs.end(),
                       [&](const Value* input) { return arranged(input).has_value(); });
  }
  if (const auto given = constant(node->input(0)); given && given->isTuple()) {
    const auto& elements = given->toTupleRef().elements();
    const auto outputs = node->outputs();
    if (outputs.size() != elements.size()) return false;
    for (std::size_t i = 0; i < outputs.size(); ++i) learn(outputs[i], Formula(elements[i]));
    return true;
  }
  const auto* made = facts_.find<Tuple>(node->input(0));
  if (node->kind() == c10::prim::TupleIndex) {
    const auto at = facts_.number(node->input(1));
    if (!made || !at || *at < 0 || *at >= static_cast<int64_t>(made->elements.size())) return false;
    return alias(node->output(), made->elements[*at]);
  }
  const auto outputs = node->outputs();
  if (!made || made->elements.size() != outputs.size()) return false;
  const Tuple all = *made;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!alias(outputs[i], all.elements[i])) return false;
  }
  return true;
}

// list, begin, end, step
bool Part::slice_list(Node* node) {
  const auto list = facts_.numbers(node->input(0));
  if (!list || facts_.number(node->input(3)) != 1) return false;
  const auto kept = facts_.slice(node, 1, static_cast<int64_t>(list->size()));
  if (!kept) return false;
  facts_.learn(node->output(), Numbers(list->begin() + kept->begin, list->begin() + kept->end));
  return true;
}

bool Part::append(Node* node) {
  // A result that is read would be the same list under another name.
  if (!node->output()->uses().empty() || facts_.is_aliased(node->input(0))) return false;
  if (auto* numbers = facts_.find<Numbers>(node->input(0))) {
    const auto number = facts_.formula(node->input(1));
    if (number) numbers->push_back(*number);
    return number.has_value();
  }
  const auto tensor = arranged(node->input(1));
  if (!tensor) return false;
  if (auto* pieces = facts_.find<Pieces>(node->input(0))) {
    // By what it is now: nothing may be written over it.
    pieces->push_back(*tensor);
    layers_.mark_shown(tensor->value);
    return true;
  }
  auto* list = facts_.find<Tensors>(node->input(0));
  if (!list || in_loop(node)) return false;
  list->push_back(node->input(1));
  return true;
}

}  // namespace convship::ops::lowering
