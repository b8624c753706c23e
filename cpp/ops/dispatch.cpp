// The ops of conv_pool2d.h through the dispatcher.
#include <ATen/core/dispatch/Dispatcher.h>

#include "ops/conv_pool2d.h"

namespace convship::ops {
namespace {

template <typename Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

template <typename Result>
using ConvSignature = Result(const at::Tensor&,
                             const at::Tensor&,
                             const std::optional<at::Tensor>&,
                             c10::IntArrayRef,
                             c10::IntArrayRef,
                             c10::IntArrayRef,
                             int64_t,
                             std::string_view,
                             c10::IntArrayRef,
                             at::OptionalIntArrayRef,
                             c10::IntArrayRef,
                             bool,
                             std::string_view);

template <typename Result>
Result call(const c10::TypedOperatorHandle<ConvSignature<Result>>& op,
            const at::Tensor& input,
            const at::Tensor& weight,
            const std::optional<at::Tensor>& bias,
            const Parameters& p) {
  const std::string_view accuracy = p.accuracy == Accuracy::direct ? "direct"
                                    : p.accuracy == Accuracy::fast ? "fast"
                                                                   : "default";
  return op.call(input, weight, bias, p.stride, p.padding, p.dilation, p.groups,
                 p.activation == Activation::relu ? "relu" : "none", p.pool_size,
                 c10::IntArrayRef(p.pool_stride), p.pool_padding, p.ceil_mode, accuracy);
}

}  // namespace

at::Tensor dispatch_conv_pool2d(const at::Tensor& input,
                                const at::Tensor& weight,
                                const std::optional<at::Tensor>& bias,
                                const Parameters& p) {
  static const auto op = find<ConvSignature<at::Tensor>>("convship::conv_pool2d");
  return call(op, input, weight, bias, p);
}

std::tuple<at::Tensor, at::Tensor> dispatch_conv_pool2d_with_index(
    const at::Tensor& input,
    const at::Tensor& weight,
    const std::optional<at::Tensor>& bias,
    const Parameters& p) {
  using Result = std::tuple<at::Tensor, at::Tensor>;
  static const auto op = find<ConvSignature<Result>>("convship::_conv_pool2d_with_index");
  return call(op, input, weight, bias, p);
}

Gradients dispatch_conv_pool2d_backward(const at::Tensor& grad,
                                        const Winners& winners,
                                        const at::Tensor& input,
                                        const at::Tensor& weight,
                                        const Parameters& p,
                                        std::array<bool, 3> wanted) {
  using Signature = Gradients(
      const at::Tensor&, const std::optional<at::Tensor>&, const at::Tensor&, const at::Tensor&,
      const at::Tensor&, c10::IntArrayRef, c10::IntArrayRef, c10::IntArrayRef, c10::IntArrayRef,
      c10::IntArrayRef, c10::IntArrayRef, bool, std::array<bool, 3>);
  static const auto op = find<Signature>("convship::_conv_pool2d_backward");
  return op.call(grad, winners.output, winners.index, input, weight, p.stride, p.padding,
                 p.dilation, p.pool_size, p.pool_stride, p.pool_padding, p.ceil_mode, wanted);
}

at::Tensor dispatch_pool_route(const at::Tensor& pooled,
                               const at::Tensor& window_index,
                               c10::SymIntArrayRef conv_size,
                               const Pair& pool_size,
                               const Pair& pool_stride,
                               const Pair& pool_padding) {
  static const auto op =
      find<at::Tensor(const at::Tensor&, const at::Tensor&, c10::SymIntArrayRef, c10::IntArrayRef,
                      c10::IntArrayRef, c10::IntArrayRef)>("convship::_pool_route");
  return op.call(pooled, window_index, conv_size, pool_size, pool_stride, pool_padding);
}

at::Tensor dispatch_pool_gather(const at::Tensor& conv,
                                const at::Tensor& window_index,
                                const Pair& pool_size,
                                const Pair& pool_stride,
                                const Pair& pool_padding) {
  static const auto op =
      find<at::Tensor(const at::Tensor&, const at::Tensor&, c10::IntArrayRef, c10::IntArrayRef,
                      c10::IntArrayRef)>("convship::_pool_gather");
  return op.call(conv, window_index, pool_size, pool_stride, pool_padding);
}

at::Tensor conv_pool2d(const at::Tensor& input,
                       const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias,
                       const ConvPool2dOptions& options) {
  return dispatch_conv_pool2d(input, weight, bias, Parameters::check(options));
}

}  // namespace convship::ops
