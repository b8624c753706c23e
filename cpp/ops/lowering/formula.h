// Numbers and other values beside the tensors of a graph: what is known of them when it is
// lowered, and what will follow from the sizes of its tensors.
#pragma once

#include <ATen/core/ivalue.h>
#include <torch/csrc/jit/ir/ir.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "ops/lowering/arrangement.h"

namespace convship::ops::lowering {

// How many places axes of a value count through: the size of a tensor's dimension.
struct Extent {
  plan::Value value;
  Axes axes;
};

// A constant, an extent, or what an operator of LibTorch makes of formulas. Cheap to copy.
class Formula {
 public:
  Formula() : Formula(c10::IValue()) {}
  explicit Formula(c10::IValue constant);
  explicit Formula(Extent extent);

  // The node's result; nothing where its operator does more than compute one value. It is
  // run when its operands are known: at once, or when sizes are.
  static std::optional<Formula> apply(torch::jit::Node* node, std::vector<Formula> operands);

  const c10::IValue* constant() const;
  std::optional<int64_t> integer() const;  // of a constant; true is 1
  std::optional<double> real() const;      // of a constant that is a number
  const Extent* extent() const;
  // How many numbers that only sizes tell it is a product of.
  int64_t factors() const;

  // Throws what the operators throw.
  c10::IValue evaluate(const std::function<int64_t(const Extent&)>& extent_of) const;

 private:
  struct Content;
  class Evaluation;
  explicit Formula(std::shared_ptr<const Content> content) : content_(std::move(content)) {}

  std::shared_ptr<const Content> content_;
};

// How many places one of a tensor's dimensions has; nothing where it has no such dimension.
std::optional<Formula> dimension_size(const Arrangement& tensor, int64_t dimension);
std::vector<Formula> sizes_of(const Arrangement& tensor);

}  // namespace convship::ops::lowering
