#include "ops/lowering/lower.h"

#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/library.h>

#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops {
namespace {

using lowering::Part;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;

// The part as a graph of its own, for inputs that no plan takes.
std::shared_ptr<Graph> copy_of(const Part& part, const std::vector<Value*>& outputs) {
  auto graph = std::make_shared<Graph>();
  std::unordered_map<const Value*, Value*> copies;
  for (Value* input : part.inputs()) {
    copies[input] = graph->addInput();
    copies[input]->setType(input->type());
  }
  const auto copy = [&](Value* value) {
    const auto found = copies.find(value);
    if (found != copies.end()) return found->second;
    Node* constant = graph->insertNode(
        graph->createClone(value->node(), [](Value*) -> Value* { return nullptr; }));
    return copies[value] = constant->output();
  };
  for (Node* node : part.nodes()) {
    Node* made = graph->insertNode(graph->createClone(node, copy));
    for (std::size_t i = 0; i < node->outputs().size(); ++i) {
      copies[node->output(i)] = made->output(i);
    }
  }
  // A function has one result.
  std::vector<Value*> results;
  for (Value* output : outputs) results.push_back(copies.at(output));
  graph->registerOutput(graph->insertNode(graph->createTuple(results))->output());
  return graph;
}

class Lowering {
 public:
  Lowering(torch::jit::Module& module, bool rounds_freely)
      : module_(module),
        graph_(module.get_method("forward").graph()),
        rounds_freely_(rounds_freely) {}

  Lowered run() {
    begin_with_results();
    const std::vector<Node*> nodes(graph_->nodes().begin(), graph_->nodes().end());
    for (std::size_t begin = 0; begin < nodes.size();) begin = lower_from(nodes, begin);
    torch::jit::EliminateDeadCode(graph_);
    count_what_is_left();
    return std::move(lowered_);
  }

 private:
  // What the caller gets is made empty before anything else, so that it does not cut a part.
  void begin_with_results() {
    const std::vector<Node*> nodes(graph_->nodes().begin(), graph_->nodes().end());
    for (Node* node : nodes) {
      const bool empty = node->kind() == c10::aten::dict && node->inputs().empty();
      if (empty && node != nodes.front() && lowering::is_returned(node->output())) {
        node->moveBefore(nodes.front());
      }
    }
  }

  // The longest part that begins at this node and makes nothing but tensors
  // for the nodes behind it. Returns where to go on.
  std::size_t lower_from(const std::vector<Node*>& nodes, std::size_t begin) {
    for (std::size_t limit = nodes.size(); limit > begin;) {
      Part part(rounds_freely_);
      std::size_t end = begin;
      while (end < limit && part.accept(nodes[end])) ++end;
      if (!part.worthwhile()) return std::max(end, begin + 1);
      const auto outputs = part.outputs();
      if (outputs && !outputs->empty()) {
        close(part, *outputs);
        return end;
      }
      limit = end - 1;
    }
    return begin + 1;
  }

  void close(const Part& part, const std::vector<Value*>& outputs) {
    plan::Network network = part.network(outputs);
    network.fuse();
    auto planned = c10::make_intrusive<Planned>(std::move(network), part.kinds(), part.weights(),
                                                copy_of(part, outputs));
    replace(part, outputs, planned);
    lowered_.parts.push_back(std::move(planned));
  }

  void replace(const Part& part,
               const std::vector<Value*>& outputs,
               const c10::intrusive_ptr<Planned>& planned) {
    const std::string name = "_convship_plan_" + std::to_string(lowered_.parts.size());
    const c10::IValue value(planned);
    module_.register_attribute(name, value.type(), value);
    const torch::jit::WithInsertPoint here(part.nodes().back()->next());
    Value* plan = graph_->insertGetAttr(graph_->inputs()[0], name);
    Value* inputs =
        graph_->insertNode(graph_->createList(c10::TensorType::get(), part.inputs()))->output();
    static const auto op = c10::Symbol::fromQualString("convship::_run_planned");
    Value* results = graph_->insert(op, {inputs, plan});
    Node* unpack = graph_->insertNode(graph_->createListUnpack(results, outputs.size()));
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      outputs[i]->replaceAllUsesWith(unpack->output(i));
    }
    for (auto node = part.nodes().rbegin(); node != part.nodes().rend(); ++node) (*node)->destroy();
    const auto graph_inputs = graph_->inputs().slice(1);
    lowered_.whole = graph_inputs.equals(part.inputs()) && graph_->outputs().size() == 1 &&
                     graph_->outputs()[0] == unpack->output(0);
  }

  void count_what_is_left() {
    std::map<std::string, int> counts;
    int nodes = 0;
    for (const Node* node : graph_->nodes()) {
      const std::string kind = node->kind().toQualString();
      if (node->kind() != c10::prim::Constant) ++nodes;
      if (kind.rfind("aten::", 0) == 0 || node->kind() == c10::prim::If ||
          node->kind() == c10::prim::Loop) {
        ++counts[kind];
      }
    }
    lowered_.left.assign(counts.begin(), counts.end());
    // The plan, its list of inputs, its call and its result: nothing is printed,
    // checked or stored besides.
    lowered_.whole = lowered_.whole && nodes == 4;
  }

  torch::jit::Module& module_;
  std::shared_ptr<Graph> graph_;
  bool rounds_freely_;
  Lowered lowered_;
};

}  // namespace

Lowered lower(torch::jit::Module& frozen, bool rounds_freely) {
  return Lowering(frozen, rounds_freely).run();
}

}  // namespace convship::ops
