#include "ops/constant_weights.h"

#include <algorithm>

#include "ops/kernel_call.h"

namespace convship::ops {
namespace {

thread_local ConstantWeights* current = nullptr;

std::pair<std::uintptr_t, std::uintptr_t> range_of(const at::Tensor& tensor) {
  const auto begin = reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr());
  int64_t last = 0;
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (tensor.size(i) == 0) return {begin, begin};
    last += (tensor.size(i) - 1) * tensor.stride(i);
  }
  return {begin, begin + static_cast<std::uintptr_t>(last + 1) * tensor.element_size()};
}

bool alike(const at::Tensor& a, const at::Tensor& b) {
  return a.const_data_ptr() == b.const_data_ptr() && a.scalar_type() == b.scalar_type() &&
         a.sizes() == b.sizes() && a.strides() == b.strides();
}

bool alike(const std::optional<at::Tensor>& a, const std::optional<at::Tensor>& b) {
  return a.has_value() == b.has_value() && (!a || alike(*a, *b));
}

}  // namespace

ConstantWeights::Use::Use(ConstantWeights& weights) : outer_(current) { current = &weights; }
ConstantWeights::Use::~Use() { current = outer_; }

ConstantWeights::ConstantWeights(const std::vector<at::Tensor>& constants) {
  for (const at::Tensor& constant : constants) {
    // Weights that LibTorch has packed in its own way have no address.
    if (constant.layout() == at::kStrided && constant.is_cpu()) {
      ranges_.push_back(range_of(constant));
    }
  }
}

ConstantWeights::~ConstantWeights() = default;

at::Tensor ConstantWeights::run(const at::Tensor& input,
                                const at::Tensor& weight,
                                const std::optional<at::Tensor>& bias,
                                const Parameters& parameters) {
  if (current == nullptr || !has_kernel(input, weight, parameters)) return {};
  const auto packed = current->get(weight, bias, parameters);
  return packed ? packed->run(input) : at::Tensor();
}

bool ConstantWeights::hold(const at::Tensor& tensor) const {
  const auto [begin, end] = range_of(tensor);
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const auto& range) {
    return range.first <= begin && end <= range.second;
  });
}

c10::intrusive_ptr<PackedConv> ConstantWeights::get(const at::Tensor& weight,
                                                    const std::optional<at::Tensor>& bias,
                                                    const Parameters& parameters) {
  check_environment();
  const auto accuracy = resolve(parameters.accuracy);
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_) {
    if (alike(entry.weight, weight) && alike(entry.bias, bias) && entry.accuracy == accuracy &&
        entry.parameters == parameters) {
      return entry.packed;
    }
  }
  if (!hold(weight) || (bias && !hold(*bias))) return {};
  // Resolved now: the setting may change before it would be read again.
  Parameters resolved = parameters;
  resolved.accuracy =
      accuracy == kernels::conv2d::Accuracy::direct ? Accuracy::direct : Accuracy::fast;
  entries_.push_back(
      {weight, bias, parameters, accuracy, PackedConv::pack(weight, bias, resolved)});
  return entries_.back().packed;
}

}  // namespace convship::ops
