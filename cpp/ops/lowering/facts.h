// What is known of a graph's values beside those that a plan's layers make: numbers, lists and
// tuples, and tensors that no layer has made yet.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/jit/ir/ir.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "kernels/conv2d/geometry.h"
#include "ops/lowering/arrangement.h"
#include "ops/lowering/formula.h"

namespace convship::ops::lowering {

struct SizesOf {
  Arrangement tensor;
};
using Numbers = std::vector<Formula>;  // a list of them
using Tensors = std::vector<torch::jit::Value*>;
using Dictionary = std::map<std::string, torch::jit::Value*>;  // of tensors by names
using Pieces = std::vector<Arrangement>;                       // a list of tensors of one node
struct Tuple {
  std::vector<const torch::jit::Value*> elements;
};
struct Repeated {  // a constant [1, ...], once for each image
  at::Tensor constant;
  Formula times;
};
struct Expanded {  // so large, by repeating places of one
  torch::jit::Value* tensor;
  Numbers sizes;
};
struct Norms {  // of a tensor's last dimension: the value has them for all of its places
  Arrangement spread;
};
struct Message {};  // that nobody reads unless sizes are wrong
struct Scores {     // of attention: scale * q k^T + bias, [..., queries, keys]
  Arrangement q, k;
  double scale = 1;
  at::Tensor factors = {};  // [heads], or undefined
  at::Tensor bias = {};     // [windows, heads, queries, keys], or undefined
  bool normal = false;      // their softmax
  bool turned = false;      // [..., keys, queries]
};
struct Narrowed {  // a tensor as bfloat16
  plan::Value value;
  const torch::jit::Value* tensor;
};
using Fact = std::variant<Formula,
                          SizesOf,
                          Numbers,
                          Tensors,
                          Dictionary,
                          Pieces,
                          Tuple,
                          Repeated,
                          Expanded,
                          Norms,
                          Message,
                          Scores,
                          Arrangement,  // of what is no image, sequence or matrix as it is
                          Narrowed>;

class Facts {
 public:
  using Value = torch::jit::Value;

  bool has(const Value* value) const { return facts_.count(value) > 0; }
  void learn(const Value* value, Fact fact) { facts_.insert_or_assign(value, std::move(fact)); }
  void forget(const Value* value) { facts_.erase(value); }
  // The other value is known as this one is: of lists, another name of the same.
  void alias(const Value* to, const Value* from);
  bool is_aliased(const Value* value) const { return aliased_.count(value) > 0; }

  template <typename Kind>
  const Kind* find(const Value* value) const {
    const auto found = facts_.find(value);
    return found == facts_.end() ? nullptr : std::get_if<Kind>(&found->second);
  }
  template <typename Kind>
  Kind* find(const Value* value) {
    const auto found = facts_.find(value);
    return found == facts_.end() ? nullptr : std::get_if<Kind>(&found->second);
  }

  // A constant of the graph, or a formula that is known of the value.
  std::optional<Formula> formula(const Value* value) const;
  std::optional<int64_t> number(const Value* value) const;
  std::optional<double> real(const Value* value) const;
  std::optional<at::Tensor> constant_tensor(const Value* value) const;
  bool is_none(const Value* value) const;
  std::optional<Numbers> numbers(const Value* value) const;
  // Of a constant list, too.
  std::optional<Formula> operand(const Value* value) const;
  // What inputs `first` and the next of a slice's node leave of so many.
  std::optional<kernels::conv2d::Range> slice(const torch::jit::Node* node,
                                              std::size_t first,
                                              int64_t count) const;

 private:
  std::unordered_map<const Value*, Fact> facts_;
  std::unordered_set<const Value*> aliased_;  // lists of more than one name
};

}  // namespace convship::ops::lowering
