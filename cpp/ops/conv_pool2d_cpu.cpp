#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/constant_weights.h"
#include "ops/conv_pool2d.h"
#include "ops/kernel_call.h"
#include "ops/parallel.h"

namespace convship::ops {
namespace {

namespace conv2d = kernels::conv2d;

Shape<int64_t> check(const at::Tensor& input,
                     const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias,
                     const Parameters& p) {
  check_types(input, weight, bias);
  return check_shape<int64_t>(p, input.sizes(), weight.sizes(),
                              bias ? std::make_optional(bias->sizes()) : std::nullopt);
}

// Packs, runs, forgets: weights that stay the same are for packed_conv.h and
// constant_weights.h.
// `index` is undefined where nobody asks for the winners.
at::Tensor forward(const Shape<int64_t>& shape,
                   const at::Tensor& input,
                   const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias,
                   const Parameters& p,
                   const at::Tensor& index) {
  check_environment();
  const at::Tensor w = weight.contiguous();
  const at::Tensor b = bias ? bias->contiguous() : at::Tensor();
  const at::Tensor output = at::empty(
      shape.output(), input.options(),
      output_format(input.suggest_memory_format(), weight.suggest_memory_format(), p, shape));
  conv2d::WindowIndex winners;
  if (index.defined() && index.scalar_type() == at::kInt) {
    winners.wide = index.mutable_data_ptr<int32_t>();
  } else if (index.defined()) {
    winners.narrow = index.mutable_data_ptr<uint8_t>();
  }
  with_element(input.scalar_type(), [&](auto element) {
    using T = decltype(element);
    const conv2d::Convolution<T> convolution(
        static_cast<const T*>(w.const_data_ptr()),
        b.defined() ? static_cast<const T*>(b.const_data_ptr()) : nullptr,
        weight_shape(w, p.groups), resolve(p.accuracy));
    convolution.run(geometry(shape, p), p.activation, view<const T>(input), view<T>(output),
                    /*residual=*/{}, winners, torch_threads());
  });
  return output;
}

// Not Tensor::contiguous, which leaves the strides of sizes 1 as they are;
// Meta has promised those of a new tensor.
at::Tensor in_format(const at::Tensor& tensor, at::MemoryFormat format) {
  if (format == at::MemoryFormat::Contiguous) return tensor.contiguous();
  const at::Tensor result = at::empty(tensor.sizes(), tensor.options(), format);
  if (result.strides() == tensor.strides()) return tensor;
  return result.copy_(tensor);
}

at::Tensor conv_pool2d_cpu(const at::Tensor& input,
                           const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias,
                           const Parameters& p) {
  if (at::Tensor output = ConstantWeights::run(input, weight, bias, p); output.defined()) {
    return output;
  }
  const auto shape = check(input, weight, bias, p);
  if (!has_kernel(input, weight, p)) {
    // The format is what Meta promises, also where LibTorch has exceptions.
    return in_format(
        unfused(input, weight, bias, p),
        output_format(input.suggest_memory_format(), weight.suggest_memory_format(), p, shape));
  }
  return forward(shape, input, weight, bias, p, at::Tensor());
}

std::tuple<at::Tensor, at::Tensor> conv_pool2d_with_index_cpu(const at::Tensor& input,
                                                              const at::Tensor& weight,
                                                              const std::optional<at::Tensor>& bias,
                                                              const Parameters& p) {
  const auto shape = check(input, weight, bias, p);
  TORCH_CHECK_NOT_IMPLEMENTED(
      has_kernel(input, weight, p) && shape.batched,
      "_conv_pool2d_with_index: input must be a batch of float32, float64 or bfloat16 images, got ",
      input.scalar_type(), " ", input.sizes());
  const at::Tensor index =
      at::empty(shape.output(), input.options().dtype(index_type(p.pool_size)));
  const at::Tensor output = forward(shape, input, weight, bias, p, index);
  return {output, index};
}

}  // namespace
}  // namespace convship::ops

TORCH_LIBRARY_IMPL(convship, CPU, m) {
  m.impl("conv_pool2d", convship::ops::boundary<convship::ops::conv_pool2d_cpu>);
  m.impl("_conv_pool2d_with_index",
         convship::ops::boundary<convship::ops::conv_pool2d_with_index_cpu>);
}
