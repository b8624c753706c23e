// Forward keeps the winning tap of each pooling window, a byte per pooled
// value, instead of the conv result and its two intermediates. Backward is
//
//   convolution_backward(route(threshold_backward(grad, output)), input, weight)
//
// of ops that are differentiable themselves, so second derivatives need no
// code of their own; or the same in one op, where no derivative of it is
// recorded and the kernels have a loop for it.
#include <ATen/core/grad_mode.h>
#include <ATen/functorch/DynamicLayer.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/conv_pool2d.h"
#include "ops/plain_call.h"
#include "ops/saved_pair.h"

namespace convship::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Parameters saved_parameters(AutogradContext* context, bool relu) {
  Parameters p{};
  p.stride = saved_pair(context, "stride");
  p.padding = saved_pair(context, "padding");
  p.dilation = saved_pair(context, "dilation");
  p.groups = context->saved_data["groups"].toInt();
  p.activation = relu ? Activation::relu : Activation::none;
  p.pool_size = saved_pair(context, "pool_size");
  p.pool_stride = saved_pair(context, "pool_stride");
  p.pool_padding = saved_pair(context, "pool_padding");
  p.ceil_mode = context->saved_data["ceil_mode"].toBool();
  p.accuracy = Accuracy::direct;
  return p;
}

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
    data["ceil_mode"] = p.ceil_mode;
    data["has_bias"] = bias.has_value();
    return output;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    // One entry per argument of forward.
    variable_list result(4);
    const at::Tensor& grad = grads[0];
    if (!grad.defined()) return result;
    const auto saved = context->get_saved_variables();
    const at::Tensor& input = saved[0];
    const at::Tensor& weight = saved[1];
    const Winners winners{saved[3].defined() ? std::optional<at::Tensor>(saved[3]) : std::nullopt,
                          saved[2]};
    const Parameters p = saved_parameters(context, winners.output.has_value());
    const bool has_bias = context->saved_data["has_bias"].toBool();
    const std::array<bool, 3> wanted = {context->needs_input_grad(0), context->needs_input_grad(1),
                                        has_bias && context->needs_input_grad(2)};
    const bool direct =
        !at::GradMode::is_enabled() && has_direct_gradients(input, weight, winners.index, p);
    const Gradients gradients =
        direct ? dispatch_conv_pool2d_backward(grad, winners, input, weight, p, wanted)
               : differentiable_gradients(grad, winners, input, weight, p, wanted);
    if (wanted[0]) result[0] = std::get<0>(gradients);
    if (wanted[1]) result[1] = std::get<1>(gradients);
    if (wanted[2]) result[2] = std::get<2>(gradients);
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
