#include "freeze.h"

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/freeze_module.h>
#include <torch/csrc/jit/passes/frozen_graph_optimizations.h>

#include <memory>
#include <string>
#include <vector>

namespace convship::runtime {
namespace {

using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;

// LibTorch (2.13) folds a sum or product with a constant into the convolution before it where
// the constant has as many numbers as there are channels, even if they lie along a side of the
// image. While one of these lives, such constants do not look like any.
class HiddenConstants {
 public:
  explicit HiddenConstants(const std::shared_ptr<Graph>& graph) { hide(*graph, graph->block()); }
  ~HiddenConstants() {
    for (Node* node : hiding_) {
      node->output()->replaceAllUsesWith(node->input());
      node->destroy();
    }
  }
  HiddenConstants(const HiddenConstants&) = delete;
  HiddenConstants& operator=(const HiddenConstants&) = delete;

 private:
  void hide(Graph& graph, Block* block) {
    for (Node* node : block->nodes()) {
      for (Block* inner : node->blocks()) hide(graph, inner);
      const auto kind = node->kind();
      const bool combines = kind == c10::aten::add || kind == c10::aten::sub ||
                            kind == c10::aten::mul || kind == c10::aten::div;
      if (!combines || is_by_channel(node)) continue;
      Node* hiding = graph.create(c10::aten::alias, {node->input(1)});
      hiding_.push_back(hiding->insertBefore(node));
      hiding->output()->setType(node->input(1)->type());
      node->replaceInput(1, hiding->output());
    }
  }

  // Or has nothing to do with a convolution.
  static bool is_by_channel(const Node* node) {
    const auto constant = torch::jit::toIValue(node->input(1));
    const Node* convolution = node->input(0)->node();
    if (!constant || !constant->isTensor() || convolution->inputs().size() < 2) return true;
    const auto weight = torch::jit::toIValue(convolution->input(1));
    if (!weight || !weight->isTensor()) return true;
    const at::Tensor numbers = constant->toTensor();
    // From the last dimension on, as broadcasting counts.
    const int64_t sides = weight->toTensor().dim() - 2;
    return numbers.numel() == 1 ||
           (sides >= 0 && numbers.dim() > sides && numbers.size(-1 - sides) == numbers.numel());
  }

  std::vector<Node*> hiding_;
};

}  // namespace

torch::jit::Module freeze_network(const torch::jit::Module& module) {
  std::vector<std::string> kept;
  if (module.find_method("preprocess")) kept.emplace_back("preprocess");
  torch::jit::Module frozen = torch::jit::freeze_module(module, kept);
  auto graph = frozen.get_method("forward").graph();
  const HiddenConstants hidden(graph);
  torch::jit::OptimizeFrozenGraph(graph);
  return frozen;
}

}  // namespace convship::runtime
