// Forward keeps the winning tap of each pooling window, a byte per pooled
// value, instead of the conv result and its two intermediates. Backward is
//
//   convolution_backward(route(threshold_backward(grad, output)), input, weight)
//
// of ops that are differentiable themselves, so second derivatives need no
// code of their own.
#include <ATen/core/grad_mode.h>
#include <ATen/functorch/DynamicLayer.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/threshold_backward.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/conv_pool2d.h"
#include "ops/plain_call.h"

namespace convship::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Pair saved_pair(AutogradContext* context, const char* name) {
  const auto values = context->saved_data[name].toIntVector();
  return {values[0], values[1]};
}

std::array<c10::SymInt, 2> symbolic(const Pair& pair) { return {pair[0], pair[1]}; }

class ConvPool2dFunction : public torch::autograd::Function<ConvPool2dFunction> {
 public:
  // Backward is made of dispatcher calls only: compiled autograd may trace it.
  static constexpr bool is_traceable = true;

  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& input,
                            const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias,
                            const Parameters& p) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [output, index] = dispatch_conv_pool2d_with_index(input, weight, bias, p);
    const bool relu = p.activation == Activation::relu;
    context->save_for_backward({input, weight, index, relu ? output : at::Tensor()});
    auto& data = context->saved_data;
    data["stride"] = c10::IntArrayRef(p.stride);
    data["padding"] = c10::IntArrayRef(p.padding);
    data["dilation"] = c10::IntArrayRef(p.dilation);
    data["groups"] = p.groups;
    data["pool_size"] = c10::IntArrayRef(p.pool_size);
    data["pool_stride"] = c10::IntArrayRef(p.pool_stride);
    data["pool_padding"] = c10::IntArrayRef(p.pool_padding);
    data["has_bias"] = bias.has_value();
    return output;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    // One entry per argument of forward.
    variable_list result(4);
    at::Tensor grad = grads[0];
    if (!grad.defined()) return result;
    const auto saved = context->get_saved_variables();
    const at::Tensor& input = saved[0];
    const at::Tensor& weight = saved[1];
    const at::Tensor& index = saved[2];
    const at::Tensor& output = saved[3];
    const Pair stride = saved_pair(context, "stride");
    const Pair padding = saved_pair(context, "padding");
    const Pair dilation = saved_pair(context, "dilation");

    // The maximum of rectified values is positive where its conv value was.
    if (output.defined()) grad = at::threshold_backward(grad, output.detach(), 0);
    std::array<c10::SymInt, 2> conv_size;
    for (int i = 0; i < 2; ++i) {
      const c10::SymInt reach = (weight.sym_size(2 + i) - 1) * dilation[i] + 1;
      conv_size[i] = (input.sym_size(2 + i) + 2 * padding[i] - reach) / stride[i] + 1;
    }
    grad = dispatch_pool_route(grad, index, conv_size, saved_pair(context, "pool_size"),
                               saved_pair(context, "pool_stride"),
                               saved_pair(context, "pool_padding"));

    const bool has_bias = context->saved_data["has_bias"].toBool();
    const c10::SymInt bias_size[] = {weight.sym_size(0)};
    const std::array<bool, 3> wanted = {context->needs_input_grad(0), context->needs_input_grad(1),
                                        has_bias && context->needs_input_grad(2)};
    std::tie(result[0], result[1], result[2]) = at::convolution_backward_symint(
        grad, input, weight, has_bias ? at::OptionalSymIntArrayRef(bias_size) : std::nullopt,
        symbolic(stride), symbolic(padding), symbolic(dilation),
        /*transposed=*/false,
        /*output_padding=*/symbolic({0, 0}), context->saved_data["groups"].toInt(), wanted);
    return result;
  }
};

at::Tensor conv_pool2d_autograd(const at::Tensor& input,
                                const at::Tensor& weight,
                                const std::optional<at::Tensor>& bias,
                                const Parameters& p) {
  // Forward-mode derivatives and functorch's transforms cannot pass through a
  // C++ autograd function.
  if (has_tangent(input) || has_tangent(weight) || (bias && has_tangent(*bias)) ||
      at::functorch::maybeCurrentDynamicLayer()) {
    return unfused(input, weight, bias, p);
  }
  const bool needs_graph =
      at::GradMode::is_enabled() &&
      (input.requires_grad() || weight.requires_grad() || (bias && bias->requires_grad()));
  if (!needs_graph) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return dispatch_conv_pool2d(input, weight, bias, p);
  }
  check_types(input, weight, bias);
  check_shape<c10::SymInt>(p, input.sym_sizes(), weight.sym_sizes(),
                           bias ? std::make_optional(bias->sym_sizes()) : std::nullopt);
  if (!has_kernel(input, weight, p)) return unfused(input, weight, bias, p);
  if (input.dim() == 3) {
    // One image comes out dense, whatever the format of the weight.
    return ConvPool2dFunction::apply(input.unsqueeze(0), weight, bias, p).squeeze(0).contiguous();
  }
  return ConvPool2dFunction::apply(input, weight, bias, p);
}

}  // namespace
}  // namespace convship::ops

TORCH_LIBRARY_IMPL(convship, Autograd, m) {
  m.impl("conv_pool2d", convship::ops::boundary<convship::ops::conv_pool2d_autograd>);
}
