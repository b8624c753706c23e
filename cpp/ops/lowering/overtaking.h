// Which nodes of a graph may run before others that stand before them.
#pragma once

#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/ir.h>

#include <memory>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

namespace convship::ops::lowering {

// Nodes that stay where they are, while others behind them come before all of them.
class Overtaken {
 public:
  // aliases: of the graph, made where they are needed; to be reset when the graph changes.
  Overtaken(std::shared_ptr<torch::jit::Graph> graph, std::optional<torch::jit::AliasDb>& aliases)
      : graph_(std::move(graph)), aliases_(aliases) {}

  // Whether the node can come before all that stay: it reads nothing that they make or
  // write, and writes nothing that they see.
  bool may_be_left_behind_by(torch::jit::Node* node);

  // The node stays. False, and it does not, where it must not run later than it does: it
  // prints, fails, or draws random numbers.
  bool stay(torch::jit::Node* node);

  // The first of them, or null.
  torch::jit::Node* first() const { return nodes_.empty() ? nullptr : nodes_.front(); }

 private:
  // Whether the node writes to what one of the values shows, or holds.
  bool writes_to(torch::jit::Node* writer, const std::vector<torch::jit::Value*>& values);

  std::shared_ptr<torch::jit::Graph> graph_;
  std::optional<torch::jit::AliasDb>& aliases_;
  std::vector<torch::jit::Node*> nodes_;
  std::vector<torch::jit::Node*> writers_;  // of nodes_
  std::unordered_set<const torch::jit::Value*> made_;
  std::vector<torch::jit::Value*> seen_;  // read or made by them
};

}  // namespace convship::ops::lowering
