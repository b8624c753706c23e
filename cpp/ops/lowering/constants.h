// Constants of a frozen graph, as layers want them.
#pragma once

#include <ATen/ops/scalar_tensor.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "plan/network.h"

namespace convship::ops::lowering {

inline std::optional<c10::IValue> constant(const torch::jit::Value* value) {
  return torch::jit::toIValue(value);
}

inline std::optional<int64_t> constant_int(const torch::jit::Value* value) {
  const auto found = constant(value);
  if (found && found->isInt()) return found->toInt();
  if (found && found->isBool()) return found->toBool() ? 1 : 0;
  // As tracing writes them.
  if (found && found->isTensor() && found->toTensor().dim() == 0 &&
      c10::isIntegralType(found->toTensor().scalar_type(), false)) {
    return found->toTensor().item<int64_t>();
  }
  return {};
}

inline std::optional<double> constant_number(const torch::jit::Value* value) {
  const auto found = constant(value);
  if (found && found->isDouble()) return found->toDouble();
  if (found && found->isInt()) return static_cast<double>(found->toInt());
  // As tracing writes them.
  if (found && found->isTensor() && found->toTensor().dim() == 0 &&
      found->toTensor().scalar_type() != at::kBool && !found->toTensor().is_complex()) {
    return found->toTensor().item<double>();
  }
  return {};
}

inline std::optional<std::vector<int64_t>> constant_ints(const torch::jit::Value* value) {
  const auto found = constant(value);
  if (!found) return {};
  if (found->isInt()) return std::vector<int64_t>{found->toInt()};
  if (found->isIntList()) return found->toIntVector();
  return {};
}

// One number stands for both.
inline std::optional<plan::Pair> constant_pair(const torch::jit::Value* value) {
  const auto list = constant_ints(value);
  if (!list || list->empty() || list->size() > 2) return {};
  return plan::Pair{list->front(), list->back()};
}

// Of a sequence the one number, as that of an image of one row, whose other one is this.
inline std::optional<plan::Pair> constant_pair(const torch::jit::Value* value,
                                               bool row,
                                               int64_t other) {
  const auto pair = constant_pair(value);
  return pair && row ? std::optional(plan::Pair{other, pair->w}) : pair;
}

// So few that no sum or product of sizes overflows. LibTorch has words for more.
constexpr int64_t kMostPlaces = int64_t{1} << 24;

// Both from `least` to kMostPlaces.
inline bool is_between(const std::optional<plan::Pair>& pair, int64_t least) {
  return pair && std::min(pair->h, pair->w) >= least && std::max(pair->h, pair->w) <= kMostPlaces;
}

inline std::optional<std::string> constant_string(const torch::jit::Value* value) {
  const auto found = constant(value);
  if (found && found->isString()) return found->toStringRef();
  return {};
}

inline bool is_returned(const torch::jit::Value* value) {
  const auto& uses = value->uses();
  return std::any_of(uses.begin(), uses.end(), [](const torch::jit::Use& use) {
    return use.user->kind() == c10::prim::Return;
  });
}

inline bool is_none(const torch::jit::Value* value) {
  const auto found = constant(value);
  return found && found->isNone();
}

// One after the other, if it is of float32 on the CPU and has any.
inline std::optional<at::Tensor> dense(const at::Tensor& tensor) {
  if (tensor.scalar_type() != at::kFloat || !tensor.device().is_cpu() ||
      tensor.layout() != at::kStrided || tensor.numel() == 0) {
    return {};
  }
  return tensor.contiguous();
}

// A dense float32 weight on the CPU with so many dimensions.
inline std::optional<at::Tensor> constant_weight(const torch::jit::Value* value, int64_t dims) {
  const auto found = constant(value);
  if (!found || !found->isTensor() || found->toTensor().dim() != dims) return {};
  return dense(found->toTensor());
}

// What an operator takes for a value: tracing writes numbers as tensors.
inline c10::IValue as_operand(c10::IValue value, bool takes_tensor) {
  if (!takes_tensor || !value.isInt()) return value;
  return at::scalar_tensor(value.toInt(), at::kLong);
}

inline std::shared_ptr<const std::vector<float>> floats_of(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  const float* const from = dense.const_data_ptr<float>();
  return std::make_shared<const std::vector<float>>(from, from + dense.numel());
}

// With dimensions of one before its own, as broadcasting has them, if it is of float32 on the
// CPU and has no more than so many.
inline std::optional<at::Tensor> with_rank(at::Tensor tensor, std::size_t rank) {
  const auto dims = static_cast<int64_t>(rank);
  if (tensor.scalar_type() != at::kFloat || !tensor.device().is_cpu() || tensor.dim() > dims) {
    return {};
  }
  while (tensor.dim() < dims) tensor = tensor.unsqueeze(0);
  return tensor;
}

// Whether running it makes one value of its operands, the same each time. It may be in place.
inline bool is_deterministic(const torch::jit::Node* node) {
  const c10::FunctionSchema* schema = node->maybeSchema();
  return schema && !schema->is_vararg() && !node->hasSideEffects() && !node->isNondeterministic() &&
         node->blocks().empty() && node->outputs().size() == 1;
}

// A number for each of `count` channels: a weight's, or all the same where there is none; null
// where the weight is another.
inline std::shared_ptr<const std::vector<float>> channel_numbers(const torch::jit::Value* value,
                                                                 int64_t count,
                                                                 float otherwise) {
  if (is_none(value)) return std::make_shared<const std::vector<float>>(count, otherwise);
  const auto given = constant_weight(value, 1);
  if (!given || given->numel() != count) return nullptr;
  return floats_of(*given);
}

}  // namespace convship::ops::lowering
