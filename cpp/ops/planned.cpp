#include "ops/planned.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <span>
#include <stdexcept>
#include <utility>

#include "kernels/aligned.h"
#include "ops/kernel_call.h"
#include "ops/parallel.h"

namespace convship::ops {
namespace {

// Sizes of input with a plan of their own; a plan is small beside its weights.
constexpr std::size_t kMostPlans = 32;
// Made for other sides than expected; they share their weights.
constexpr std::size_t kMostNetworks = 8;

thread_local Recording* recording = nullptr;

plan::Size size_of(const at::Tensor& tensor) {
  if (tensor.dim() == 2) return {tensor.size(0), tensor.size(1), {1, 1}, true};
  if (tensor.dim() == 3) return {tensor.size(0), tensor.size(1), {1, tensor.size(2)}, false};
  return {tensor.size(0), tensor.size(1), {tensor.size(2), tensor.size(3)}, false};
}

kernels::conv2d::View<const float> view_of(const at::Tensor& tensor) {
  if (tensor.dim() == 4) return view<const float>(tensor);
  const int64_t column = tensor.dim() == 3 ? tensor.stride(2) : 0;
  return {tensor.const_data_ptr<float>(), tensor.stride(0), tensor.stride(1), 0, column};
}

at::Tensor empty_for(const plan::Size& size, int64_t dimensions) {
  if (dimensions == 2) return at::empty({size.n, size.c}, at::kFloat);
  if (dimensions == 3) return at::empty({size.n, size.c, size.image.w}, at::kFloat);
  return at::empty({size.n, size.c, size.image.h, size.image.w}, at::kFloat);
}

}  // namespace

// Memory of calls that ended, for those that begin.
class Planned::Memories {
 public:
  struct Memory {
    kernels::AlignedArray<float> data;
    int64_t floats = 0;
  };

  Memory take(int64_t floats) {
    Memory memory;
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        memory = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (memory.floats < floats) {
      memory.data.reset();
      memory = {kernels::make_aligned<float>(floats), floats};
      // What pads blocks of channels is computed with, if never used.
      std::fill_n(memory.data.get(), floats, 0.0f);
    }
    return memory;
  }

  void give_back(Memory memory) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(memory));
  }

 private:
  std::mutex mutex_;
  std::vector<Memory> free_;
};

Planned::Planned(plan::Network network,
                 std::vector<int64_t> inputs,
                 std::vector<int64_t> outputs,
                 std::shared_ptr<const void> weights,
                 std::shared_ptr<torch::jit::Graph> fallback,
                 NetworkFor for_sides)
    : inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      weights_(std::move(weights)),
      fallback_(std::make_unique<torch::jit::GraphFunction>(
          c10::QualifiedName("planned"), std::move(fallback), nullptr)),
      for_sides_(std::move(for_sides)),
      memories_(std::make_unique<Memories>()) {
  networks_.push_back(std::move(network));
}

Planned::~Planned() = default;

bool Planned::serves(const std::vector<at::Tensor>& inputs) const {
  if (inputs.size() != inputs_.size() || !plan::has_loops()) return false;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const at::Tensor& x = inputs[i];
    if (!x.defined() || x.scalar_type() != at::kFloat || !x.device().is_cpu() ||
        x.layout() != at::kStrided || x.dim() != inputs_[i] || x.numel() == 0 || x.is_neg() ||
        (x.requires_grad() && at::GradMode::is_enabled())) {
      return false;
    }
  }
  return true;
}

std::shared_ptr<const plan::Plan> Planned::make_plan(const std::vector<plan::Size>& sizes) const {
  const auto plan_of = [&](plan::Network network) -> std::shared_ptr<const plan::Plan> {
    try {
      network.fuse(sizes);
      return std::make_shared<const plan::Plan>(network, sizes);
    } catch (const std::invalid_argument&) {
      return nullptr;  // LibTorch broadcasts, or says what is wrong
    }
  };
  for (auto network = networks_.begin(); network != networks_.end(); ++network) {
    if (auto plan = plan_of(*network)) {
      std::rotate(networks_.begin(), network, network + 1);
      return plan;
    }
  }
  auto network = for_sides_ ? for_sides_(sizes.front().image) : std::nullopt;
  auto plan = network ? plan_of(*network) : nullptr;
  if (plan) {
    networks_.insert(networks_.begin(), *std::move(network));
    if (networks_.size() > kMostNetworks) networks_.pop_back();
  }
  return plan;
}

std::shared_ptr<const plan::Plan> Planned::plan_for(const std::vector<at::Tensor>& inputs) const {
  const auto fits = [&](const Sized& sized) {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (!(sized.inputs[i] == size_of(inputs[i]))) return false;
    }
    return true;
  };
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(plans_.begin(), plans_.end(), fits);
  if (found != plans_.end()) {
    std::rotate(plans_.begin(), found, found + 1);
    return plans_.front().plan;
  }
  Sized sized;
  for (const at::Tensor& x : inputs) sized.inputs.push_back(size_of(x));
  sized.plan = make_plan(sized.inputs);
  plans_.insert(plans_.begin(), std::move(sized));
  if (plans_.size() > kMostPlans) plans_.pop_back();
  return plans_.front().plan;
}

std::vector<at::Tensor> Planned::fall_back(const std::vector<at::Tensor>& inputs) const {
  torch::jit::Stack stack(inputs.begin(), inputs.end());
  fallback_->run(stack);
  std::vector<at::Tensor> outputs;
  for (const c10::IValue& value : stack.back().toTupleRef().elements()) {
    outputs.push_back(value.toTensor());
  }
  return outputs;
}

template <typename Run>
std::vector<at::Tensor> Planned::with_plan(const plan::Plan& plan,
                                           const std::vector<at::Tensor>& inputs,
                                           const Run& run) const {
  c10::SmallVector<kernels::conv2d::View<const float>, 2> views;
  for (const at::Tensor& x : inputs) views.push_back(view_of(x));
  std::vector<at::Tensor> outputs;
  c10::SmallVector<float*, 2> targets;
  for (const plan::Size& size : plan.outputs()) {
    outputs.push_back(empty_for(size, outputs_[outputs.size()]));
    targets.push_back(outputs.back().mutable_data_ptr<float>());
  }
  Memories::Memory memory = memories_->take(plan.memory(torch_threads().width()));
  run(std::span<const kernels::conv2d::View<const float>>(views.data(), views.size()),
      std::span<float* const>(targets.data(), targets.size()),
      std::span(memory.data.get(), memory.floats));
  memories_->give_back(std::move(memory));
  return outputs;
}

std::vector<at::Tensor> Planned::run(const std::vector<at::Tensor>& inputs) const {
  const auto plan = serves(inputs) ? plan_for(inputs) : nullptr;
  if (!plan) return fall_back(inputs);
  return with_plan(*plan, inputs, [&](auto views, auto targets, std::span<float> memory) {
    if (recording) {
      const auto steps = plan->profile(views, targets, memory, torch_threads());
      recording->steps.insert(recording->steps.end(), steps.begin(), steps.end());
    } else {
      plan->run(views, targets, memory, torch_threads());
    }
  });
}

Recording::Recording() { recording = this; }
Recording::~Recording() { recording = nullptr; }

}  // namespace convship::ops
