// Part of a frozen network that runs by a plan instead of LibTorch's operators.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/custom_class.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "convship/export.h"
#include "plan/plan.h"

namespace convship::ops {

class CONVSHIP_API Planned final : public torch::CustomClassHolder {
 public:
  using NetworkFor = std::function<std::optional<plan::Network>(plan::Pair sides)>;

  // inputs, outputs: how many dimensions each has; other inputs are answered by LibTorch.
  // weights: what networks refer to. fallback: the same part as LibTorch's operators,
  // with the same inputs and outputs. for_sides: the network for an image of other sides,
  // where the first one is not made for it; null where that one is for all.
  Planned(plan::Network network,
          std::vector<int64_t> inputs,
          std::vector<int64_t> outputs,
          std::shared_ptr<const void> weights,
          std::shared_ptr<torch::jit::Graph> fallback,
          NetworkFor for_sides);
  ~Planned() override;

  // Thread-safe. Calls that run at once have a memory each.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs) const;

 private:
  class Memories;
  struct Sized {
    std::vector<plan::Size> inputs;
    std::shared_ptr<const plan::Plan> plan;  // null where the network does not take them
  };

  bool serves(const std::vector<at::Tensor>& inputs) const;
  // Null where the sizes fit no network.
  std::shared_ptr<const plan::Plan> plan_for(const std::vector<at::Tensor>& inputs) const;
  std::vector<at::Tensor> fall_back(const std::vector<at::Tensor>& inputs) const;
  template <typename Run>
  std::vector<at::Tensor> with_plan(const plan::Plan& plan,
                                    const std::vector<at::Tensor>& inputs,
                                    const Run& run) const;

  std::shared_ptr<const plan::Plan> make_plan(const std::vector<plan::Size>& sizes) const;

  std::vector<int64_t> inputs_;
  std::vector<int64_t> outputs_;
  std::shared_ptr<const void> weights_;
  std::unique_ptr<torch::jit::GraphFunction> fallback_;
  NetworkFor for_sides_;
  mutable std::mutex mutex_;
  mutable std::vector<plan::Network> networks_;  // latest first
  mutable std::vector<Sized> plans_;             // latest first
  std::unique_ptr<Memories> memories_;
};

// While it lives, plans that this thread runs measure their steps.
class CONVSHIP_API Recording {
 public:
  Recording();
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  std::vector<plan::Plan::Timing> steps;  // in the order in which they ran
};

}  // namespace convship::ops
