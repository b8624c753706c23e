// _pool_route and _pool_gather: CPU, Meta, and each the other's derivative.
#include "kernels/conv2d/pool_route.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>

#include "ops/conv_pool2d.h"
#include "ops/parallel.h"
#include "ops/saved_pair.h"

namespace convship::ops {
namespace {

namespace conv2d = kernels::conv2d;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Pair to_pair(const char* name, c10::IntArrayRef values, int64_t least) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  TORCH_CHECK_VALUE(values.size() == 2 && std::min(values[0], values[1]) >= least &&
                        std::max(values[0], values[1]) <= kMost,
                    "pool_route: ", name, " must be two numbers between ", least, " and ", kMost,
                    ", got ", values);
  return {values[0], values[1]};
}

void check_tensors(const at::Tensor& values, const at::Tensor& index, const char* name) {
  TORCH_CHECK_VALUE(values.dim() == 4 && index.dim() == 4, "pool_route: ", name,
                    " and window_index must have 4 dimensions, got ", values.dim(), " and ",
                    index.dim());
  const auto type = values.scalar_type();
  TORCH_CHECK_NOT_IMPLEMENTED(type == at::kFloat || type == at::kDouble || type == at::kBFloat16,
                              "pool_route: ", name, " must be float32, float64 or bfloat16, got ",
                              type);
  const auto index_type = index.scalar_type();
  TORCH_CHECK_TYPE(index_type == at::kByte || index_type == at::kInt,
                   "pool_route: window_index must be uint8 or int32, got ", index_type);
}

// All dense NCHW.
template <typename T, typename Index>
bool run(bool route,
         const conv2d::PoolGeometry& g,
         const at::Tensor& from,
         const at::Tensor& index,
         const at::Tensor& to) {
  const auto kernel = route ? conv2d::pool_route<T, Index> : conv2d::pool_gather<T, Index>;
  return kernel(g, from.const_data_ptr<T>(), index.const_data_ptr<Index>(),
                to.mutable_data_ptr<T>(), torch_threads());
}

at::Tensor move(bool route,
                const at::Tensor& from,
                const at::Tensor& window_index,
                const Pair& conv_size,
                const Pair& pool_size,
                const Pair& pool_stride,
                const Pair& pool_padding) {
  if (from.scalar_type() == at::kBFloat16) {
    // Sums of overlapping windows are rounded once.
    return move(route, from.to(at::kFloat), window_index, conv_size, pool_size, pool_stride,
                pool_padding)
        .to(at::kBFloat16);
  }
  const auto pooled = window_index.sizes();
  TORCH_CHECK_VALUE(
      from.size(0) == pooled[0] && from.size(1) == pooled[1] && (!route || from.sizes() == pooled),
      "pool_route: sizes must fit window_index, got ", from.sizes(), " and ", pooled);
  const at::Tensor x = from.contiguous();
  const at::Tensor index = window_index.contiguous();
  const at::Tensor y =
      route ? at::empty({pooled[0], pooled[1], conv_size[0], conv_size[1]}, x.options())
            : at::empty(pooled, x.options());
  const conv2d::PoolGeometry g{.planes = pooled[0] * pooled[1],
                               .size = {pool_size[0], pool_size[1]},
                               .stride = {pool_stride[0], pool_stride[1]},
                               .padding = {pool_padding[0], pool_padding[1]},
                               .conv = {conv_size[0], conv_size[1]},
                               .pooled = {pooled[2], pooled[3]}};
  const bool wide = index.scalar_type() == at::kInt;
  const auto kernel = x.scalar_type() == at::kFloat
                          ? (wide ? run<float, int32_t> : run<float, uint8_t>)
                          : (wide ? run<double, int32_t> : run<double, uint8_t>);
  TORCH_CHECK_VALUE(kernel(route, g, x, index, y),
                    "pool_route: window_index must point into its window and into the conv result");
  return y;
}

at::Tensor route_cpu(const at::Tensor& pooled,
                     const at::Tensor& window_index,
                     c10::IntArrayRef conv_size,
                     c10::IntArrayRef pool_size,
                     c10::IntArrayRef pool_stride,
                     c10::IntArrayRef pool_padding) {
  check_tensors(pooled, window_index, "pooled");
  return move(true, pooled, window_index, to_pair("conv_size", conv_size, 1),
              to_pair("pool_size", pool_size, 1), to_pair("pool_stride", pool_stride, 1),
              to_pair("pool_padding", pool_padding, 0));
}

at::Tensor gather_cpu(const at::Tensor& conv,
                      const at::Tensor& window_index,
                      c10::IntArrayRef pool_size,
                      c10::IntArrayRef pool_stride,
                      c10::IntArrayRef pool_padding) {
  check_tensors(conv, window_index, "conv");
  return move(false, conv, window_index, {conv.size(2), conv.size(3)},
              to_pair("pool_size", pool_size, 1), to_pair("pool_stride", pool_stride, 1),
              to_pair("pool_padding", pool_padding, 0));
}

at::Tensor route_meta(const at::Tensor& pooled,
                      const at::Tensor& window_index,
                      c10::SymIntArrayRef conv_size,
                      c10::IntArrayRef /*pool_size*/,
                      c10::IntArrayRef /*pool_stride*/,
                      c10::IntArrayRef /*pool_padding*/) {
  check_tensors(pooled, window_index, "pooled");
  return at::empty_symint({pooled.sym_size(0), pooled.sym_size(1), conv_size[0], conv_size[1]},
                          pooled.options());
}

at::Tensor gather_meta(const at::Tensor& conv,
                       const at::Tensor& window_index,
                       c10::IntArrayRef /*pool_size*/,
                       c10::IntArrayRef /*pool_stride*/,
                       c10::IntArrayRef /*pool_padding*/) {
  check_tensors(conv, window_index, "conv");
  return at::empty_symint(window_index.sym_sizes(), conv.options());
}

void save_pool(AutogradContext* context,
               const at::Tensor& window_index,
               const Pair& size,
               const Pair& stride,
               const Pair& padding) {
  context->save_for_backward({window_index});
  context->saved_data["size"] = c10::IntArrayRef(size);
  context->saved_data["stride"] = c10::IntArrayRef(stride);
  context->saved_data["padding"] = c10::IntArrayRef(padding);
}

class RouteFunction : public torch::autograd::Function<RouteFunction> {
 public:
  static constexpr bool is_traceable = true;

  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& pooled,
                            const at::Tensor& window_index,
                            c10::SymIntArrayRef conv_size,
                            const Pair& size,
                            const Pair& stride,
                            const Pair& padding) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    save_pool(context, window_index, size, stride, padding);
    return dispatch_pool_route(pooled, window_index, conv_size, size, stride, padding);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    variable_list result(6);
    if (!grads[0].defined()) return result;
    result[0] = dispatch_pool_gather(grads[0], context->get_saved_variables()[0],
                                     saved_pair(context, "size"), saved_pair(context, "stride"),
                                     saved_pair(context, "padding"));
    return result;
  }
};

class GatherFunction : public torch::autograd::Function<GatherFunction> {
 public:
  static constexpr bool is_traceable = true;

  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& conv,
                            const at::Tensor& window_index,
                            const Pair& size,
                            const Pair& stride,
                            const Pair& padding) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    save_pool(context, window_index, size, stride, padding);
    context->saved_data["h"] = conv.sym_size(2);
    context->saved_data["w"] = conv.sym_size(3);
    return dispatch_pool_gather(conv, window_index, size, stride, padding);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    variable_list result(5);
    if (!grads[0].defined()) return result;
    const c10::SymInt conv_size[] = {context->saved_data["h"].toSymInt(),
                                     context->saved_data["w"].toSymInt()};
    result[0] = dispatch_pool_route(grads[0], context->get_saved_variables()[0], conv_size,
                                    saved_pair(context, "size"), saved_pair(context, "stride"),
                                    saved_pair(context, "padding"));
    return result;
  }
};

at::Tensor route_autograd(const at::Tensor& pooled,
                          const at::Tensor& window_index,
                          c10::SymIntArrayRef conv_size,
                          c10::IntArrayRef pool_size,
                          c10::IntArrayRef pool_stride,
                          c10::IntArrayRef pool_padding) {
  return RouteFunction::apply(pooled, window_index, conv_size, to_pair("pool_size", pool_size, 1),
                              to_pair("pool_stride", pool_stride, 1),
                              to_pair("pool_padding", pool_padding, 0));
}

at::Tensor gather_autograd(const at::Tensor& conv,
                           const at::Tensor& window_index,
                           c10::IntArrayRef pool_size,
                           c10::IntArrayRef pool_stride,
                           c10::IntArrayRef pool_padding) {
  return GatherFunction::apply(conv, window_index, to_pair("pool_size", pool_size, 1),
                               to_pair("pool_stride", pool_stride, 1),
                               to_pair("pool_padding", pool_padding, 0));
}

}  // namespace
}  // namespace convship::ops

TORCH_LIBRARY_IMPL(convship, CPU, m) {
  m.impl("_pool_route", convship::ops::route_cpu);
  m.impl("_pool_gather", convship::ops::gather_cpu);
}

TORCH_LIBRARY_IMPL(convship, Meta, m) {
  m.impl("_pool_route", convship::ops::route_meta);
  m.impl("_pool_gather", convship::ops::gather_meta);
}

TORCH_LIBRARY_IMPL(convship, Autograd, m) {
  m.impl("_pool_route", convship::ops::route_autograd);
  m.impl("_pool_gather", convship::ops::gather_autograd);
}
