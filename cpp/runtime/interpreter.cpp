#include "interpreter.h"

#include <torch/csrc/jit/runtime/graph_executor.h>

namespace convship::runtime {
namespace {

template <typename Test>
bool has_node(const torch::jit::Block* block, const Test& test) {
  for (const torch::jit::Node* node : block->nodes()) {
    if (test(*node)) return true;
    for (const torch::jit::Block* inner : node->blocks()) {
      if (has_node(inner, test)) return true;
    }
  }
  return false;
}

bool uses_attributes(const torch::jit::Node& node) {
  return node.kind() == c10::prim::GetAttr || node.kind() == c10::prim::SetAttr;
}

const torch::jit::Block* block_of(const torch::jit::Module& module, const char* method) {
  return module.get_method(method).graph()->block();
}

}  // namespace

c10::IValue call_method(const torch::jit::Module& module,
                        const char* method,
                        std::vector<c10::IValue> arguments,
                        Backend backend) {
  const torch::jit::GraphOptimizerEnabledGuard optimize(backend == Backend::libtorch);
  return module.get_method(method)(std::move(arguments));
}

bool keeps_state(const torch::jit::Module& frozen, const char* method) {
  return has_node(block_of(frozen, method), uses_attributes);
}

bool is_pure(const torch::jit::Module& frozen, const char* method) {
  return !has_node(block_of(frozen, method), [](const torch::jit::Node& node) {
    return uses_attributes(node) || node.isNondeterministic() ||
           (node.hasSideEffects() && node.kind() != c10::prim::RaiseException);
  });
}

}  // namespace convship::runtime
