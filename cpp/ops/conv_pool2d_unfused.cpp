// What runs where there is no kernel: other devices, dtypes and layouts, and
// vmap, whose rules for these ops LibTorch has.
#include <ATen/ops/conv2d.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>
#include <torch/library.h>

#include "ops/conv_pool2d.h"

namespace convship::ops {

at::Tensor unfused(const at::Tensor& input,
                   const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias,
                   const Parameters& p) {
  at::Tensor result = at::conv2d(input, weight, bias, p.stride, p.padding, p.dilation, p.groups);
  if (p.activation == Activation::relu) result = at::relu(result);
  return at::max_pool2d(result, p.pool_size, p.pool_stride, p.pool_padding, {1, 1}, p.ceil_mode);
}

namespace {

at::Tensor conv_pool2d_unfused(const at::Tensor& input,
                               const at::Tensor& weight,
                               const std::optional<at::Tensor>& bias,
                               const Parameters& p) {
  check_types(input, weight, bias);
  check_shape<c10::SymInt>(p, input.sym_sizes(), weight.sym_sizes(),
                           bias ? std::make_optional(bias->sym_sizes()) : std::nullopt);
  return unfused(input, weight, bias, p);
}

}  // namespace
}  // namespace convship::ops

TORCH_LIBRARY_IMPL(convship, CompositeExplicitAutograd, m) {
  m.impl("conv_pool2d", convship::ops::boundary<convship::ops::conv_pool2d_unfused>);
}

// Sizes are those of one example here: LibTorch's ops see the whole batch.
TORCH_LIBRARY_IMPL(convship, FuncTorchBatched, m) {
  m.impl("conv_pool2d", convship::ops::boundary<convship::ops::conv_pool2d_unfused>);
}
