#include "ops/lowering/overtaking.h"

#include <algorithm>

namespace convship::ops::lowering {

using torch::jit::Block;
using torch::jit::Node;
using torch::jit::Value;

namespace {

// visit(inner) for the node and all nodes in its blocks, until one answers true.
template <typename Visit>
bool any_node(const Node* node, const Visit& visit) {
  if (visit(node)) return true;
  const auto blocks = node->blocks();
  return std::any_of(blocks.begin(), blocks.end(), [&](const Block* block) {
    const auto nodes = block->nodes();
    return std::any_of(nodes.begin(), nodes.end(),
                       [&](const Node* inner) { return any_node(inner, visit); });
  });
}

bool writes(const Node* node) {
  return any_node(node, [](const Node* inner) {
    const c10::FunctionSchema* schema = inner->maybeSchema();
    return schema && schema->is_mutable();
  });
}

// Of the node and all that is in it.
torch::jit::ValueSet inputs_of(const Node* node) {
  torch::jit::ValueSet inputs;
  any_node(node, [&](const Node* inner) {
    inputs.insert(inner->inputs().begin(), inner->inputs().end());
    return false;
  });
  return inputs;
}

}  // namespace

const torch::jit::AliasDb& Overtaken::aliases() {
  if (!aliases_) aliases_.emplace(graph_, /*isFrozen=*/true);
  return *aliases_;
}

bool Overtaken::may_be_left_behind_by(Node* node) {
  if (nodes_.empty()) return true;
  const torch::jit::ValueSet inputs = inputs_of(node);
  if (std::any_of(inputs.begin(), inputs.end(),
                  [&](const Value* input) { return made_.count(input) > 0; })) {
    return false;
  }
  if (writes(node) && aliases().writesToAlias(node, seen_)) return false;
  return std::none_of(writers_.begin(), writers_.end(),
                      [&](Node* writer) { return aliases().writesToAlias(writer, inputs); });
}

bool Overtaken::stay(Node* node) {
  const bool in_order = any_node(node, [](const Node* inner) {
    return inner->kind() == c10::prim::RaiseException || inner->isNondeterministic() ||
           (inner->hasSideEffects() && inner->blocks().empty());
  });
  if (in_order) return false;
  nodes_.push_back(node);
  if (writes(node)) writers_.push_back(node);
  made_.insert(node->outputs().begin(), node->outputs().end());
  const torch::jit::ValueSet inputs = inputs_of(node);
  seen_.insert(inputs.begin(), inputs.end());
  seen_.insert(node->outputs().begin(), node->outputs().end());
  return true;
}

}  // namespace convship::ops::lowering
