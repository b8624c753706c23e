// Under autocast the op computes in the type that conv2d would compute in.
#include <ATen/autocast_mode.h>
#include <torch/library.h>

#include "ops/conv_pool2d.h"

namespace convship::ops {
namespace {

template <c10::DispatchKey key, c10::DeviceType device>
at::Tensor conv_pool2d_autocast(const at::Tensor& input,
                                const at::Tensor& weight,
                                const std::optional<at::Tensor>& bias,
                                const Parameters& p) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(key);
  const auto type = at::autocast::get_autocast_dtype(device);
  return dispatch_conv_pool2d(at::autocast::cached_cast(type, input, device),
                              at::autocast::cached_cast(type, weight, device),
                              at::autocast::cached_cast(type, bias, device), p);
}

}  // namespace
}  // namespace convship::ops

TORCH_LIBRARY_IMPL(convship, AutocastCPU, m) {
  m.impl("conv_pool2d",
         convship::ops::boundary<
             convship::ops::conv_pool2d_autocast<c10::DispatchKey::AutocastCPU, c10::kCPU>>);
}

TORCH_LIBRARY_IMPL(convship, AutocastCUDA, m) {
  m.impl("conv_pool2d",
         convship::ops::boundary<
             convship::ops::conv_pool2d_autocast<c10::DispatchKey::AutocastCUDA, c10::kCUDA>>);
}
