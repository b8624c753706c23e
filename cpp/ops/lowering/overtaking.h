// Which nodes of a graph may run before others that stand before them.
#pragma once

#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/ir.h>

#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace convship::ops::lowering {

// What the nodes of a graph do to each other, found out once; until the graph changes.
class Effects {
 public:
  // Of a node and all that is in its blocks.
  struct Of {
    std::vector<torch::jit::Value*> inputs;
    std::vector<torch::jit::Value*> written;  // of the inputs
    bool in_order = false;  // it prints, fails, or draws random numbers: later is not the same
  };

  explicit Effects(std::shared_ptr<torch::jit::Graph> graph) : graph_(std::move(graph)) {}

  const Of& of(torch::jit::Node* node);
  // Whether the node writes to what one of the values shows, or holds.
  bool writes_to(torch::jit::Node* node, const std::vector<torch::jit::Value*>& values);
  void forget();

 private:
  std::shared_ptr<torch::jit::Graph> graph_;
  std::optional<torch::jit::AliasDb> aliases_;  // made where it is needed
  std::unordered_map<torch::jit::Node*, Of> of_;
};

// Nodes that stay where they are, while others behind them come before all of them.
class Overtaken {
 public:
  explicit Overtaken(Effects& effects) : effects_(effects) {}

  // Whether the node can come before all that stay: it reads nothing that they make or
  // write, and writes nothing that they see.
  bool may_be_left_behind_by(torch::jit::Node* node);

  // The node stays. False, and it does not, where it must not run later than it does.
  bool stay(torch::jit::Node* node);

  // The first of them, or null.
  torch::jit::Node* first() const { return nodes_.empty() ? nullptr : nodes_.front(); }

 private:
  Effects& effects_;
  std::vector<torch::jit::Node*> nodes_;
  std::vector<torch::jit::Node*> writers_;  // of nodes_
  std::unordered_set<const torch::jit::Value*> made_;
  std::vector<torch::jit::Value*> seen_;  // read or made by them
};

}  // namespace convship::ops::lowering
