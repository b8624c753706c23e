#include "ops/packed_conv.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <sstream>

#include "ops/kernel_call.h"
#include "ops/parallel.h"
#include "ops/plain_call.h"

namespace convship::ops {
namespace {

namespace conv2d = kernels::conv2d;

template <typename T>
class PackedConvOf final : public PackedConv {
 public:
  PackedConvOf(const at::Tensor& weight,
               const std::optional<at::Tensor>& bias,
               const Parameters& parameters)
      : PackedConv(weight, bias, parameters),
        convolution_(static_cast<const T*>(weight_.const_data_ptr()),
                     bias_ ? static_cast<const T*>(bias_->const_data_ptr()) : nullptr,
                     weight_shape(weight_, parameters_.groups),
                     resolve(parameters_.accuracy)) {}

  at::Tensor run(const at::Tensor& input) const override {
    check_types(input, weight_, bias_);
    TORCH_CHECK_NOT_IMPLEMENTED(input.layout() == at::kStrided,
                                "conv_pool2d_packed: input must be strided, got ", input.layout());
    const auto shape =
        check_shape<int64_t>(parameters_, input.sizes(), weight_.sizes(),
                             bias_ ? std::make_optional(bias_->sizes()) : std::nullopt);
    check_environment();
    const int64_t sizes[] = {shape.n, shape.c_out, shape.pooled[0], shape.pooled[1]};
    const auto output_sizes = c10::IntArrayRef(sizes).slice(shape.batched ? 0 : 1);
    // Not at::empty, whose way through the dispatcher takes longer than a
    // layer of 28x28 pixels.
    const at::Tensor output = at::detail::empty_cpu(
        output_sizes, input.scalar_type(), /*pin_memory=*/false,
        output_format(input.suggest_memory_format(), weight_format_, parameters_, shape));
    convolution_.run(geometry(shape, parameters_), parameters_.activation, view<const T>(input),
                     view<T>(output), /*residual=*/{}, /*index=*/{}, torch_threads());
    return output;
  }

 private:
  const conv2d::Convolution<T> convolution_;
};

c10::intrusive_ptr<PackedConv> prepack(const at::Tensor& weight,
                                       const std::optional<at::Tensor>& bias,
                                       c10::IntArrayRef stride,
                                       c10::IntArrayRef padding,
                                       c10::IntArrayRef dilation,
                                       int64_t groups,
                                       std::string_view activation,
                                       c10::IntArrayRef pool_size,
                                       at::OptionalIntArrayRef pool_stride,
                                       c10::IntArrayRef pool_padding,
                                       bool ceil_mode,
                                       std::string_view accuracy) {
  return PackedConv::pack(
      weight, bias,
      Parameters::check(stride, padding, dilation, groups, activation, pool_size, pool_stride,
                        pool_padding, ceil_mode, accuracy));
}

at::Tensor packed_cpu(const at::Tensor& input, const c10::intrusive_ptr<PackedConv>& packed) {
  return packed->run(input);
}

at::Tensor packed_meta(const at::Tensor& input, const c10::intrusive_ptr<PackedConv>& packed) {
  return packed->meta(input);
}

at::Tensor dispatch_packed(const at::Tensor& input, const c10::intrusive_ptr<PackedConv>& packed) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("convship::conv_pool2d_packed", "")
          .typed<at::Tensor(const at::Tensor&, const c10::intrusive_ptr<PackedConv>&)>();
  return op.call(input, packed);
}

void check_no_derivative(const at::Tensor& input) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !needs_derivative(input),
      "conv_pool2d_packed: input must not require grad, because packed weights have no "
      "derivatives; use conv_pool2d, or call under torch.no_grad()");
}

at::Tensor packed_autograd(const at::Tensor& input, const c10::intrusive_ptr<PackedConv>& packed) {
  check_no_derivative(input);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return dispatch_packed(input, packed);
}

}  // namespace

PackedConv::PackedConv(const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias,
                       const Parameters& parameters)
    : parameters_(parameters),
      weight_format_(weight.suggest_memory_format()),
      weight_(weight.detach().clone(at::MemoryFormat::Contiguous)),
      bias_(bias ? std::make_optional(bias->detach().clone(at::MemoryFormat::Contiguous))
                 : std::nullopt) {}

c10::intrusive_ptr<PackedConv> PackedConv::pack(const at::Tensor& weight,
                                                const std::optional<at::Tensor>& bias,
                                                const Parameters& parameters) {
  check_types(weight, weight, bias, "weight");
  check_weight<int64_t>(parameters, weight.sizes(),
                        bias ? std::make_optional(bias->sizes()) : std::nullopt);
  TORCH_CHECK_NOT_IMPLEMENTED(
      has_kernel(weight, weight, parameters),
      "conv_pool2d_prepack: weight must be a strided float32, float64 or bfloat16 tensor of the "
      "CPU, with a window of at most 2^31 - 1 taps, got ",
      weight.scalar_type(), ", ", weight.layout(), ", ", weight.device(), " and pool_size ",
      c10::IntArrayRef(parameters.pool_size));
  check_environment();
  return with_element(weight.scalar_type(), [&](auto element) {
    return c10::intrusive_ptr<PackedConv>(
        c10::make_intrusive<PackedConvOf<decltype(element)>>(weight, bias, parameters));
  });
}

at::Tensor PackedConv::meta(const at::Tensor& input) const {
  TORCH_CHECK_TYPE(input.scalar_type() == weight_.scalar_type(),
                   "conv_pool2d: weight must have the dtype of input, got ", weight_.scalar_type(),
                   " and input ", input.scalar_type());
  const auto shape =
      check_shape<c10::SymInt>(parameters_, input.sym_sizes(), weight_.sym_sizes(),
                               bias_ ? std::make_optional(bias_->sym_sizes()) : std::nullopt);
  return at::empty_symint(
      shape.output(), input.options(),
      output_format(input.suggest_memory_format(), weight_format_, parameters_, shape));
}

std::string PackedConv::description() const {
  std::ostringstream text;
  text << "PackedConv(weight=" << weight_.sizes() << ", " << weight_.scalar_type() << ")";
  return text.str();
}

kernels::conv2d::Packings packings() { return kernels::conv2d::packings(); }

c10::intrusive_ptr<PackedConv> conv_pool2d_prepack(const at::Tensor& weight,
                                                   const std::optional<at::Tensor>& bias,
                                                   const ConvPool2dOptions& options) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("convship::conv_pool2d_prepack", "")
                             .typed<decltype(prepack)>();
  const ConvPool2dOptions& o = options;
  const Pair pool_stride = o.pool_stride.value_or(o.pool_size);
  return op.call(weight, bias, o.stride, o.padding, o.dilation, o.groups, o.activation, o.pool_size,
                 c10::IntArrayRef(pool_stride), o.pool_padding, o.ceil_mode, o.accuracy);
}

at::Tensor conv_pool2d_packed(const at::Tensor& input,
                              const c10::intrusive_ptr<PackedConv>& packed) {
  if (!is_plain(input) || !no_modes()) return dispatch_packed(input, packed);
  check_no_derivative(input);
  return packed->run(input);
}

}  // namespace convship::ops

// Everywhere: it says itself what it does not pack.
TORCH_LIBRARY_IMPL(convship, CompositeExplicitAutograd, m) {
  m.impl("conv_pool2d_prepack", convship::ops::prepack);
}

TORCH_LIBRARY_IMPL(convship, CPU, m) { m.impl("conv_pool2d_packed", convship::ops::packed_cpu); }

TORCH_LIBRARY_IMPL(convship, Meta, m) { m.impl("conv_pool2d_packed", convship::ops::packed_meta); }

TORCH_LIBRARY_IMPL(convship, Autograd, m) {
  m.impl("conv_pool2d_packed", convship::ops::packed_autograd);
}
