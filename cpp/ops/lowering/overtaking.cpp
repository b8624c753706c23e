#include "ops/lowering/overtaking.h"

#include <algorithm>

namespace convship::ops::lowering {

using torch::jit::Block;
using torch::jit::Node;
using torch::jit::Value;

namespace {

void add_effects(Node* node, Effects::Of& all) {
  all.inputs.insert(all.inputs.end(), node->inputs().begin(), node->inputs().end());
  all.in_order = all.in_order || node->kind() == c10::prim::RaiseException ||
                 node->isNondeterministic() || (node->hasSideEffects() && node->blocks().empty());
  const c10::FunctionSchema* schema = node->maybeSchema();
  if (schema && schema->is_mutable()) {
    const auto& arguments = schema->arguments();
    for (std::size_t i = 0; i < std::min(arguments.size(), node->inputs().size()); ++i) {
      const c10::AliasInfo* alias = arguments[i].alias_info();
      if (alias && alias->isWrite()) all.written.push_back(node->input(i));
    }
  }
  for (Block* block : node->blocks()) {
    for (Node* inner : block->nodes()) add_effects(inner, all);
  }
}

}  // namespace

const Effects::Of& Effects::of(Node* node) {
  const auto [found, is_new] = of_.try_emplace(node);
  if (is_new) add_effects(node, found->second);
  return found->second;
}

bool Effects::writes_to(Node* node, const std::vector<Value*>& values) {
  const std::vector<Value*>& written = of(node).written;
  if (written.empty()) return false;
  if (!aliases_) aliases_.emplace(graph_, /*isFrozen=*/true);
  return std::any_of(written.begin(), written.end(),
                     [&](Value* to) { return aliases_->mayContainAlias(to, values); });
}

void Effects::forget() {
  aliases_.reset();
  of_.clear();
}

bool Overtaken::may_be_left_behind_by(Node* node) {
  if (nodes_.empty()) return true;
  const std::vector<Value*>& inputs = effects_.of(node).inputs;
  if (std::any_of(inputs.begin(), inputs.end(),
                  [&](const Value* input) { return made_.count(input) > 0; })) {
    return false;
  }
  return !effects_.writes_to(node, seen_) &&
         std::none_of(writers_.begin(), writers_.end(),
                      [&](Node* writer) { return effects_.writes_to(writer, inputs); });
}

bool Overtaken::stay(Node* node) {
  const Effects::Of& its = effects_.of(node);
  if (its.in_order) return false;
  nodes_.push_back(node);
  if (!its.written.empty()) writers_.push_back(node);
  made_.insert(node->outputs().begin(), node->outputs().end());
  seen_.insert(seen_.end(), its.inputs.begin(), its.inputs.end());
  seen_.insert(seen_.end(), node->outputs().begin(), node->outputs().end());
  return true;
}

}  // namespace convship::ops::lowering
