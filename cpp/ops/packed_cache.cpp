#include "ops/packed_cache.h"

#include <ATen/core/grad_mode.h>

#include "ops/kernel_call.h"
#include "ops/plain_call.h"

namespace convship::ops {
namespace {

// Inference tensors have no version: they count as never written to.
int64_t version_of(const at::Tensor& tensor) {
  return tensor.is_inference() ? -1 : static_cast<int64_t>(tensor._version());
}

}  // namespace

PackedCache::Seen::Seen(const at::Tensor& tensor)
    : tensor_(tensor.getIntrusivePtr()),
      storage_(tensor.storage().getWeakStorageImpl()),
      data_(tensor.const_data_ptr()),
      version_(version_of(tensor)),
      type_(tensor.scalar_type()),
      sizes_(tensor.sizes().vec()),
      strides_(tensor.strides().vec()) {}

bool PackedCache::Seen::is(const at::Tensor& tensor) const {
  return tensor.unsafeGetTensorImpl() == tensor_._unsafe_get_target() &&
         tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl() ==
             storage_._unsafe_get_target() &&
         tensor.const_data_ptr() == data_ && version_of(tensor) == version_ &&
         tensor.scalar_type() == type_ && tensor.sizes() == sizes_ && tensor.strides() == strides_;
}

PackedCache::PackedCache(const ConvPool2dOptions& options)
    : parameters_(Parameters::check(options)) {}

at::Tensor PackedCache::run(const at::Tensor& input,
                            const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
  const auto is_served = [](const at::Tensor& tensor) {
    return is_plain(tensor) && !has_tangent(tensor);
  };
  if (at::GradMode::is_enabled() || !no_modes() || !is_served(input) || !is_served(weight) ||
      (bias && !is_served(*bias)) || !has_kernel(input, weight, parameters_) ||
      input.scalar_type() != weight.scalar_type()) {
    return {};
  }
  check_environment();
  return get(weight, bias)->run(input);
}

void PackedCache::clear() {
  const std::lock_guard lock(mutex_);
  entry_.reset();
}

c10::intrusive_ptr<PackedConv> PackedCache::get(const at::Tensor& weight,
                                                const std::optional<at::Tensor>& bias) {
  const auto accuracy = resolve(parameters_.accuracy);
  const std::lock_guard lock(mutex_);
  const bool same = entry_ && entry_->weight.is(weight) && entry_->accuracy == accuracy &&
                    entry_->bias.has_value() == bias.has_value() &&
                    (!bias || entry_->bias->is(*bias));
  if (!same) {
    // Seen before it is read: a write in the meantime makes the next call pack
    // again.
    Seen seen(weight);
    std::optional<Seen> seen_bias;
    if (bias) seen_bias.emplace(*bias);
    Parameters resolved = parameters_;
    resolved.accuracy =
        accuracy == kernels::conv2d::Accuracy::direct ? Accuracy::direct : Accuracy::fast;
    entry_.emplace(Entry{std::move(seen), std::move(seen_bias), accuracy,
                         PackedConv::pack(weight, bias, resolved)});
  }
  return entry_->packed;
}

}  // namespace convship::ops
