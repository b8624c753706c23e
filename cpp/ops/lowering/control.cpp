// Branches and loops of a graph, followed where it is known how they go.
#include <algorithm>
#include <utility>

#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

bool Part::run(const torch::jit::Block* block) {
  for (const Node* node : block->nodes()) {
    if (node->kind() != c10::prim::Constant && !translate(const_cast<Node*>(node))) return false;
  }
  return true;
}

// Of a condition that is known, or expected; or to an error, if sizes will be such.
bool Part::branch(Node* node) {
  const auto condition = facts_.formula(node->input(0));
  if (!condition) return false;
  const auto raises = [](const torch::jit::Block* block) {
    return std::any_of(block->nodes().begin(), block->nodes().end(), [](const Node* inner) {
      return inner->kind() == c10::prim::RaiseException;
    });
  };
  const auto blocks = node->blocks();
  std::size_t taken = 0;
  if (const auto holds = condition->integer()) {
    taken = *holds != 0 ? 0 : 1;
  } else if (!condition->constant() && raises(blocks[0]) != raises(blocks[1])) {
    taken = raises(blocks[0]) ? 1 : 0;
    require([condition = measure(*condition), holds = taken == 0](const auto& sizes) {
      return (condition(sizes) != 0) == holds;
    });
  } else {
    const auto expected = expect(*condition);
    if (!expected) return false;
    taken = *expected != 0 ? 0 : 1;
  }
  if (raises(blocks[taken]) || !run(blocks[taken])) return false;
  for (std::size_t i = 0; i < node->outputs().size(); ++i) {
    if (!alias(node->output(i), blocks[taken]->outputs()[i])) return false;
  }
  return true;
}

bool Part::in_loop(const Node* node) {
  for (; node; node = node->owningBlock()->owningNode()) {
    if (node->kind() == c10::prim::Loop) return true;
  }
  return false;
}

// Of a known number of rounds.
bool Part::loop(Node* node) {
  constexpr int64_t kMost = 64, kMostOfAll = 1024;
  const auto rounds = facts_.number(node->input(0));
  const torch::jit::Block* body = node->blocks()[0];
  if (!rounds || *rounds < 0 || *rounds > kMost || facts_.number(node->input(1)) != 1) return false;
  const auto inputs = node->inputs().slice(2);
  const auto before = body->inputs().slice(1), after = body->outputs().slice(1);
  std::vector<const Value*> carried(inputs.begin(), inputs.end());
  for (std::size_t k = 0; k < after.size(); ++k) {  // values that change places
    const auto same = std::find(before.begin(), before.end(), after[k]);
    if (same != before.end() && same != before.begin() + static_cast<std::ptrdiff_t>(k))
      return false;
  }
  for (int64_t i = 0; i < *rounds; ++i) {
    if (++rounds_ > kMostOfAll) return false;
    learn(body->inputs()[0], Formula(c10::IValue(i)));
    for (std::size_t k = 0; k < before.size(); ++k) {
      if (!alias(before[k], carried[k])) return false;
    }
    if (!run(body) || facts_.number(body->outputs()[0]) != 1) return false;
    carried.assign(after.begin(), after.end());
  }
  for (std::size_t k = 0; k < carried.size(); ++k) {
    if (!alias(node->output(k), carried[k])) return false;
  }
  return true;
}

}  // namespace convship::ops::lowering
