// Shapes without values, for torch.compile and torch.export: sizes may be
// symbols of the traced program.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/conv_pool2d.h"

namespace convship::ops {
namespace {

Shape<c10::SymInt> check_symbolic(const at::Tensor& input,
                                  const at::Tensor& weight,
                                  const std::optional<at::Tensor>& bias,
                                  const Parameters& p) {
  check_types(input, weight, bias);
  return check_shape<c10::SymInt>(p, input.sym_sizes(), weight.sym_sizes(),
                                  bias ? std::make_optional(bias->sym_sizes()) : std::nullopt);
}

at::Tensor conv_pool2d_meta(const at::Tensor& input,
                            const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias,
                            const Parameters& p) {
  const auto shape = check_symbolic(input, weight, bias, p);
  return at::empty_symint(
      shape.output(), input.options(),
      output_format(input.suggest_memory_format(), weight.suggest_memory_format(), p, shape));
}

std::tuple<at::Tensor, at::Tensor> conv_pool2d_with_index_meta(
    const at::Tensor& input,
    const at::Tensor& weight,
    const std::optional<at::Tensor>& bias,
    const Parameters& p) {
  const auto shape = check_symbolic(input, weight, bias, p);
  return {at::empty_symint(shape.output(), input.options(),
                           output_format(input.suggest_memory_format(),
                                         weight.suggest_memory_format(), p, shape)),
          at::empty_symint(shape.output(), input.options().dtype(index_type(p.pool_size)))};
}

}  // namespace
}  // namespace convship::ops

TORCH_LIBRARY_IMPL(convship, Meta, m) {
  m.impl("conv_pool2d", convship::ops::boundary<convship::ops::conv_pool2d_meta>);
  m.impl("_conv_pool2d_with_index",
         convship::ops::boundary<convship::ops::conv_pool2d_with_index_meta>);
}
