#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "kernels/conv2d/plain.h"
#include "ops/conv_pool2d.h"
#include "ops/parallel.h"

namespace convship::ops {
namespace {

namespace conv2d = kernels::conv2d;

conv2d::Pair pair(const Pair& p) { return {p[0], p[1]}; }

conv2d::Geometry geometry(const Shape<int64_t>& shape, const Parameters& p) {
  return {.n = shape.n,
          .c_in = shape.c_in,
          .image = pair(shape.image),
          .c_out = shape.c_out,
          .kernel = pair(shape.kernel),
          .stride = pair(p.stride),
          .padding = pair(p.padding),
          .dilation = pair(p.dilation),
          .groups = p.groups,
          .pool_size = pair(p.pool_size),
          .pool_stride = pair(p.pool_stride),
          .pool_padding = pair(p.pool_padding),
          .conv = pair(shape.conv),
          .pooled = pair(shape.pooled)};
}

Shape<int64_t> check(const at::Tensor& input,
                     const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias,
                     const Parameters& p) {
  check_types(input, weight, bias);
  return check_shape<int64_t>(p, input.sizes(), weight.sizes(),
                              bias ? std::make_optional(bias->sizes()) : std::nullopt);
}

template <typename T, typename Index>
void run(const Shape<int64_t>& shape,
         const Parameters& p,
         const at::Tensor& input,
         const at::Tensor& weight,
         const at::Tensor& bias,
         const at::Tensor& output,
         const at::Tensor& index) {
  conv2d::conv_pool2d_plain<T, Index>(
      geometry(shape, p), p.activation, input.const_data_ptr<T>(), weight.const_data_ptr<T>(),
      bias.defined() ? bias.const_data_ptr<T>() : nullptr, output.mutable_data_ptr<T>(),
      index.defined() ? index.mutable_data_ptr<Index>() : nullptr, torch_threads());
}

// Not Tensor::contiguous, which leaves the strides of sizes 1 as they are;
// Meta has promised those of a new tensor.
at::Tensor in_format(const at::Tensor& tensor, at::MemoryFormat format) {
  if (format == at::MemoryFormat::Contiguous) return tensor.contiguous();
  const at::Tensor result = at::empty(tensor.sizes(), tensor.options(), format);
  if (result.strides() == tensor.strides()) return tensor;
  return result.copy_(tensor);
}

// The kernel reads and writes dense NCHW; what is not gets copied. `index` is
// undefined where nobody asks for the winners.
at::Tensor forward(const Shape<int64_t>& shape,
                   const at::Tensor& input,
                   const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias,
                   const Parameters& p,
                   const at::Tensor& index) {
  const at::Tensor x = input.contiguous();
  const at::Tensor w = weight.contiguous();
  const at::Tensor b = bias ? bias->contiguous() : at::Tensor();
  const at::Tensor output = at::empty(shape.output(), x.options());
  const bool single = x.scalar_type() == at::kFloat;
  if (index.defined() && index.scalar_type() == at::kInt) {
    (single ? run<float, int32_t> : run<double, int32_t>)(shape, p, x, w, b, output, index);
  } else {
    (single ? run<float, uint8_t> : run<double, uint8_t>)(shape, p, x, w, b, output, index);
  }
  return in_format(output, output_format(input, weight, p, shape));
}

at::Tensor conv_pool2d_cpu(const at::Tensor& input,
                           const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias,
                           const Parameters& p) {
  const auto shape = check(input, weight, bias, p);
  if (!has_kernel(input, weight, p)) {
    // The format is what Meta promises, also where LibTorch has exceptions.
    return in_format(unfused(input, weight, bias, p), output_format(input, weight, p, shape));
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
      "_conv_pool2d_with_index: input must be a batch of float32 or float64 images, got ",
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
