// The gradients of conv_pool2d: from torch's differentiable ops, and in one go
// where the kernels can (no graph is recorded: a first derivative, as training
// asks for it).
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/threshold_backward.h>
#include <torch/library.h>

#include "kernels/conv2d/winners.h"
#include "ops/conv_pool2d.h"
#include "ops/kernel_call.h"
#include "ops/parallel.h"

namespace convship::ops {

namespace conv2d = kernels::conv2d;

namespace {

std::array<c10::SymInt, 2> symbolic(const Pair& pair) { return {pair[0], pair[1]}; }

}  // namespace

Gradients differentiable_gradients(const at::Tensor& pooled_grad,
                                   const Winners& winners,
                                   const at::Tensor& input,
                                   const at::Tensor& weight,
                                   const Parameters& p,
                                   std::array<bool, 3> wanted) {
  at::Tensor grad = pooled_grad;
  // The maximum of rectified values is positive where its conv value was.
  if (winners.output) grad = at::threshold_backward(grad, winners.output->detach(), 0);
  std::array<c10::SymInt, 2> conv_size;
  for (int i = 0; i < 2; ++i) {
    const c10::SymInt reach = (weight.sym_size(2 + i) - 1) * p.dilation[i] + 1;
    conv_size[i] = (input.sym_size(2 + i) + 2 * p.padding[i] - reach) / p.stride[i] + 1;
  }
  grad = dispatch_pool_route(grad, winners.index, conv_size, p.pool_size, p.pool_stride,
                             p.pool_padding);
  const c10::SymInt bias_size[] = {weight.sym_size(0)};
  return at::convolution_backward_symint(
      grad, input, weight, wanted[2] ? at::OptionalSymIntArrayRef(bias_size) : std::nullopt,
      symbolic(p.stride), symbolic(p.padding), symbolic(p.dilation),
      /*transposed=*/false, /*output_padding=*/symbolic({0, 0}), p.groups, wanted);
}

bool has_direct_gradients(const at::Tensor& input,
                          const at::Tensor& weight,
                          const at::Tensor& index,
                          const Parameters& p) {
  const auto type = input.scalar_type();
  if (!input.is_cpu() || (type != at::kFloat && type != at::kDouble) ||
      index.scalar_type() != at::kByte || p.groups != 1) {
    return false;
  }
  // A traced program finds out when it runs, and then does what eager mode does.
  if (input.unsafeGetTensorImpl()->has_symbolic_sizes_strides() ||
      weight.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) {
    return true;
  }
  const auto shape = check_shape<int64_t>(p, input.sizes(), weight.sizes(), std::nullopt);
  if (shape.n == 0) return false;
  const auto g = geometry(shape, p);
  return type == at::kFloat ? conv2d::has_winners_backward<float>(g)
                            : conv2d::has_winners_backward<double>(g);
}

namespace {

// The formats that convolution_backward gives.
at::MemoryFormat gradient_format(const at::Tensor& input, const at::Tensor& weight) {
  const auto last = at::MemoryFormat::ChannelsLast;
  return input.suggest_memory_format() == last || weight.suggest_memory_format() == last
             ? last
             : at::MemoryFormat::Contiguous;
}

// Not wanted: no values.
Gradients empty_gradients(const at::Tensor& input,
                          const at::Tensor& weight,
                          std::array<bool, 3> wanted) {
  const auto format = gradient_format(input, weight);
  const auto like = [&](bool is_wanted, c10::SymIntArrayRef sizes) {
    return is_wanted ? at::empty_symint(sizes, input.options(), format)
                     : at::empty({0}, input.options());
  };
  return {like(wanted[0], input.sym_sizes()), like(wanted[1], weight.sym_sizes()),
          at::empty_symint({wanted[2] ? weight.sym_size(0) : c10::SymInt(0)}, input.options())};
}

template <typename T>
void run(const at::Tensor& grad,
         const Winners& winners,
         const at::Tensor& input,
         const at::Tensor& weight,
         const Parameters& p,
         const Gradients& to,
         std::array<bool, 3> wanted) {
  const auto shape = check_shape<int64_t>(p, input.sizes(), weight.sizes(), std::nullopt);
  const auto g = geometry(shape, p);
  const at::Tensor index = winners.index.contiguous();
  const at::Tensor dense = weight.contiguous();
  const at::Tensor dense_gradient =
      wanted[1] ? at::empty(weight.sizes(), weight.options(), at::MemoryFormat::Contiguous)
                : at::Tensor();
  conv2d::WinnersCall<T> call{
      .geometry = g,
      .grad = view<const T>(grad),
      .output = winners.output ? view<const T>(*winners.output) : conv2d::View<const T>{},
      .index = index.const_data_ptr<uint8_t>(),
      .input = view<const T>(input),
      .weight = dense.const_data_ptr<T>(),
      .grad_input = wanted[0] ? view<T>(std::get<0>(to)) : conv2d::View<T>{},
      .grad_weight = wanted[1] ? dense_gradient.mutable_data_ptr<T>() : nullptr,
      .grad_bias = wanted[2] ? std::get<2>(to).mutable_data_ptr<T>() : nullptr};
  TORCH_CHECK_VALUE(
      conv2d::winners_backward(call, torch_threads()),
      "conv_pool2d: window_index must point into its window and into the conv result");
  if (wanted[1]) std::get<1>(to).copy_(dense_gradient);
}

Gradients backward_cpu(const at::Tensor& grad,
                       const std::optional<at::Tensor>& output,
                       const at::Tensor& window_index,
                       const at::Tensor& input,
                       const at::Tensor& weight,
                       const Parameters& p,
                       std::array<bool, 3> wanted) {
  const Winners winners{output, window_index};
  const Gradients result = empty_gradients(input, weight, wanted);
  if (has_direct_gradients(input, weight, window_index, p)) {
    const auto kernel = input.scalar_type() == at::kFloat ? run<float> : run<double>;
    kernel(grad, winners, input, weight, p, result, wanted);
    return result;
  }
  // Traced for sizes, or an instruction set, for which the kernel is no gain.
  const Gradients other = differentiable_gradients(grad, winners, input, weight, p, wanted);
  const auto take = [](bool is_wanted, const at::Tensor& from, const at::Tensor& to) {
    if (!is_wanted) return to;
    return from.strides() == to.strides() ? from : at::Tensor(to).copy_(from);
  };
  return {take(wanted[0], std::get<0>(other), std::get<0>(result)),
          take(wanted[1], std::get<1>(other), std::get<1>(result)),
          take(wanted[2], std::get<2>(other), std::get<2>(result))};
}

Gradients backward_meta(const at::Tensor& /*grad*/,
                        const std::optional<at::Tensor>& /*output*/,
                        const at::Tensor& /*window_index*/,
                        const at::Tensor& input,
                        const at::Tensor& weight,
                        const Parameters& /*p*/,
                        std::array<bool, 3> wanted) {
  return empty_gradients(input, weight, wanted);
}

// Gives `implementation` the arguments of the schema.
template <auto implementation>
Gradients backward_boundary(const at::Tensor& grad,
                            const std::optional<at::Tensor>& output,
                            const at::Tensor& window_index,
                            const at::Tensor& input,
                            const at::Tensor& weight,
                            c10::IntArrayRef stride,
                            c10::IntArrayRef padding,
                            c10::IntArrayRef dilation,
                            c10::IntArrayRef pool_size,
                            c10::IntArrayRef pool_stride,
                            c10::IntArrayRef pool_padding,
                            bool ceil_mode,
                            std::array<bool, 3> wanted) {
  return implementation(
      grad, output, window_index, input, weight,
      Parameters::check(stride, padding, dilation, /*groups=*/1, output ? "relu" : "none",
                        pool_size, pool_stride, pool_padding, ceil_mode, "direct"),
      wanted);
}

}  // namespace
}  // namespace convship::ops

TORCH_LIBRARY_IMPL(convship, CPU, m) {
  m.impl("_conv_pool2d_backward", convship::ops::backward_boundary<convship::ops::backward_cpu>);
}

TORCH_LIBRARY_IMPL(convship, Meta, m) {
  m.impl("_conv_pool2d_backward", convship::ops::backward_boundary<convship::ops::backward_meta>);
}
