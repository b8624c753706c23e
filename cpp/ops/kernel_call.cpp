#include "ops/kernel_call.h"

#include <stdexcept>

#include "kernels/instruction_set.h"

namespace convship::ops {
namespace {

kernels::conv2d::Pair pair(const Pair& p) { return {p[0], p[1]}; }

}  // namespace

kernels::conv2d::Geometry geometry(const Shape<int64_t>& shape, const Parameters& p) {
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

kernels::conv2d::WeightShape weight_shape(const at::Tensor& weight, int64_t groups) {
  return {weight.size(0), weight.size(1), {weight.size(2), weight.size(3)}, groups};
}

void check_environment() {
  try {
    kernels::active_instruction_set();
    resolve(Accuracy::standard);
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
}

}  // namespace convship::ops
