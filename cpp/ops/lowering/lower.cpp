#include "ops/lowering/lower.h"

#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/library.h>

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "ops/kernel_call.h"
#include "ops/lowering/constants.h"
#include "ops/lowering/folding.h"
#include "ops/lowering/overtaking.h"
#include "ops/lowering/part.h"

namespace convship::ops {
namespace {

using lowering::Overtaken;
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
    // A list for others, of which the part has not all elements.
    const bool whole = std::all_of(node->inputs().begin(), node->inputs().end(), [&](Value* v) {
      return copies.count(v) > 0 || v->node()->kind() == c10::prim::Constant;
    });
    if (!whole) continue;
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

// Of the whole graph, which copy_of made; nothing where it takes more than one part.
std::optional<plan::Network> network_of(Graph& graph,
                                        bool rounds_freely,
                                        plan::Pair sides,
                                        const std::shared_ptr<lowering::Weights>& weights) {
  Part part(rounds_freely, sides, weights);
  Node* const results = graph.outputs()[0]->node();
  for (Node* node : graph.nodes()) {
    if (node == results) break;
    if (!part.accept(node)) return {};
  }
  const auto outgoing = part.outgoing();
  if (!outgoing || !outgoing->kept.empty() || !graph.inputs().equals(part.inputs()) ||
      !results->inputs().equals(outgoing->tensors)) {
    return {};
  }
  return part.network(outgoing->tensors);
}

class Lowering {
 public:
  Lowering(torch::jit::Module& module, bool rounds_freely, plan::Pair expected)
      : module_(module),
        graph_(module.get_method("forward").graph()),
        rounds_freely_(rounds_freely),
        expected_(expected),
        effects_(graph_) {}

  Lowered run() {
    lowering::fold_constants(module_);
    begin_with_results();
    for (Node* node = *graph_->nodes().begin(); node != graph_->return_node();) {
      node = lower_from(node);
    }
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

  // What a plan serves from this node on: what it cannot, and what needs that, stays
  // behind it. Returns where to go on.
  Node* lower_from(Node* begin) {
    for (const Node* limit = graph_->return_node(); limit != begin;) {
      Part part(rounds_freely_, expected_, std::make_shared<lowering::Weights>(accuracy_));
      Overtaken behind(effects_);
      Node* node = begin;
      for (; node != limit; node = node->next()) {
        if (behind.may_be_left_behind_by(node) && part.accept(node)) continue;
        if (!behind.stay(node)) break;
      }
      if (!part.worthwhile()) {
        Node* const next = behind.first() ? behind.first() : node;
        return next == begin ? begin->next() : next;
      }
      const auto outgoing = part.outgoing();
      if (outgoing && !outgoing->tensors.empty()) return close(part, *outgoing, behind.first());
      limit = part.nodes().back();
    }
    return begin->next();
  }

  // behind: the first node that stays, or null.
  Node* close(const Part& part, const Part::Outgoing& outgoing, Node* behind) {
    const std::shared_ptr<Graph> copy = copy_of(part, outgoing.tensors);
    Planned::NetworkFor for_sides;
    if (part.depends_on_sides()) {
      // LibTorch may run the other one meanwhile.
      for_sides = [graph = copy->copy(), freely = rounds_freely_, weights = part.weights()](
                      plan::Pair sides) { return network_of(*graph, freely, sides, weights); };
    }
    auto planned = c10::make_intrusive<Planned>(
        part.network(outgoing.tensors), part.dimensions(part.inputs()),
        part.dimensions(outgoing.tensors), part.weights(), copy, std::move(for_sides));
    Node* const last = replace(part, outgoing, behind, planned);
    lowered_.parts.push_back(std::move(planned));
    effects_.forget();
    return last->next();
  }

  Node* replace(const Part& part,
                const Part::Outgoing& outgoing,
                Node* behind,
                const c10::intrusive_ptr<Planned>& planned) {
    const std::string name = "_convship_plan_" + std::to_string(lowered_.parts.size());
    const c10::IValue value(planned);
    module_.register_attribute(name, value.type(), value);
    const std::vector<Value*>& outputs = outgoing.tensors;
    const torch::jit::WithInsertPoint here(behind ? behind : part.nodes().back()->next());
    Value* plan = graph_->insertGetAttr(graph_->inputs()[0], name);
    Value* inputs =
        graph_->insertNode(graph_->createList(c10::TensorType::get(), part.inputs()))->output();
    static const auto op = c10::Symbol::fromQualString("convship::_run_planned");
    Value* results = graph_->insert(op, {inputs, plan});
    Node* unpack = graph_->insertNode(graph_->createListUnpack(results, outputs.size()));
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      outputs[i]->replaceAllUsesWith(unpack->output(i));
    }
    Node* last = unpack;
    for (Node* node : outgoing.kept) {
      node->moveAfter(last);
      last = node;
    }
    const std::unordered_set<const Node*> kept(outgoing.kept.begin(), outgoing.kept.end());
    for (auto node = part.nodes().rbegin(); node != part.nodes().rend(); ++node) {
      if (!kept.count(*node)) (*node)->destroy();
    }
    const auto graph_inputs = graph_->inputs().slice(1);
    lowered_.whole = graph_inputs.equals(part.inputs()) && graph_->outputs().size() == 1 &&
                     graph_->outputs()[0] == unpack->output(0);
    return unpack;
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
  const kernels::conv2d::Accuracy accuracy_ = resolve(Accuracy::standard);
  bool rounds_freely_;
  plan::Pair expected_;
  lowering::Effects effects_;
  Lowered lowered_;
};

}  // namespace

Lowered lower(torch::jit::Module& frozen, bool rounds_freely, plan::Pair expected) {
  return Lowering(frozen, rounds_freely, expected).run();
}

}  // namespace convship::ops
