#include "ops/lowering/overtaking.h"

#include <algorithm>

namespace convship::ops::lowering {

using torch::jit::Block;
using torch::jit::Node;
using torch::jit::Value;

namespace {

// visit(inner) for the node and all nodes in its blocks, until one answers true.
template <typename Visit>
bool any_node(Node* node, const Visit& visit) {
  if (visit(node)) return true;
  const auto blocks = node->blocks();
  return std::any_of(blocks.begin(), blocks.end(), [&](Block* block) {
    auto nodes = block->nodes();
    return std::any_of(nodes.begin(), nodes.end(),
                       [&](Node* inner) { return any_node(inner, visit); });
  });
}

// Of the node and all that is in it.
std::vector<Value*> inputs_of(Node* node) {
  std::vector<Value*> inputs;
  any_node(node, [&](Node* inner) {
    inputs.insert(inputs.end(), inner->inputs().begin(), inner->inputs().end());
    return false;
  });
  return inputs;
}

// The inputs that the node, or one in it, writes to.
std::vector<Value*> written_by(Node* node) {
  std::vector<Value*> written;
  any_node(node, [&](Node* inner) {
    const c10::FunctionSchema* schema = inner->maybeSchema();
    if (!schema || !schema->is_mutable()) return false;
    const auto& arguments = schema->arguments();
    for (std::size_t i = 0; i < std::min(arguments.size(), inner->inputs().size()); ++i) {
      const c10::AliasInfo* alias = arguments[i].alias_info();
      if (alias && alias->isWrite()) written.push_back(inner->input(i));
    }
    return false;
  });
  return written;
}

}  // namespace

bool Overtaken::writes_to(Node* writer, const std::vector<Value*>& values) {
  const std::vector<Value*> written = written_by(writer);
  if (written.empty()) return false;
  if (!aliases_) aliases_.emplace(graph_, /*isFrozen=*/true);
  return std::any_of(written.begin(), written.end(),
                     [&](Value* to) { return aliases_->mayContainAlias(to, values); });
}

bool Overtaken::may_be_left_behind_by(Node* node) {
  if (nodes_.empty()) return true;
  const std::vector<Value*> inputs = inputs_of(node);
  if (std::any_of(inputs.begin(), inputs.end(),
                  [&](const Value* input) { return made_.count(input) > 0; })) {
    return false;
  }
  return !writes_to(node, seen_) &&
         std::none_of(writers_.begin(), writers_.end(),
                      [&](Node* writer) { return writes_to(writer, inputs); });
}

bool Overtaken::stay(Node* node) {
  const bool in_order = any_node(node, [](Node* inner) {
    return inner->kind() == c10::prim::RaiseException || inner->isNondeterministic() ||
           (inner->hasSideEffects() && inner->blocks().empty());
  });
  if (in_order) return false;
  nodes_.push_back(node);
  if (!written_by(node).empty()) writers_.push_back(node);
  made_.insert(node->outputs().begin(), node->outputs().end());
  const std::vector<Value*> inputs = inputs_of(node);
  seen_.insert(seen_.end(), inputs.begin(), inputs.end());
  seen_.insert(seen_.end(), node->outputs().begin(), node->outputs().end());
  return true;
}

}  // namespace convship::ops::lowering
