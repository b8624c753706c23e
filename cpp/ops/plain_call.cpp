#include "ops/plain_call.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/core/grad_mode.h>
#include <ATen/record_function.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace convship::ops {
namespace {

using c10::DispatchKey;
using c10::DispatchKeySet;

// What an ordinary tensor carries; an inference tensor lacks two of them.
constexpr DispatchKeySet kPlainTensor({DispatchKey::CPU, DispatchKey::ADInplaceOrView,
                                       DispatchKey::AutogradCPU, DispatchKey::AutocastCPU});

bool is_subset(DispatchKeySet part, DispatchKeySet whole) { return (part | whole) == whole; }

}  // namespace

bool no_modes() {
  const auto local = c10::impl::tls_local_dispatch_key_set();
  return is_subset(local.included_, c10::default_included_set) &&
         local.excluded_.has(DispatchKey::AutocastCPU) && !at::hasCallbacks() &&
         !at::impl::torch_function_mode_enabled();
}

bool is_plain(const at::Tensor& tensor) { return is_subset(tensor.key_set(), kPlainTensor); }

bool has_tangent(const at::Tensor& tensor) {
  return tensor.defined() && tensor._fw_grad(/*level=*/0).defined();
}

bool needs_derivative(const at::Tensor& tensor) {
  return (at::GradMode::is_enabled() && tensor.requires_grad()) || has_tangent(tensor);
}

}  // namespace convship::ops
