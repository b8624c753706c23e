// Tensors and parameters as the kernels want to see them.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <type_traits>

#include "kernels/conv2d/convolution.h"
#include "ops/conv_pool2d.h"

namespace convship::ops {

kernels::conv2d::Geometry geometry(const Shape<int64_t>& shape, const Parameters& parameters);

// Of a weight [C_out, C_in / groups, K_h, K_w].
kernels::conv2d::WeightShape weight_shape(const at::Tensor& weight, int64_t groups);

// Throws c10::ValueError when CONVSHIP_ISA or CONVSHIP_ACCURACY names what is
// not there. Those who read it would find out themselves, but with an exception
// that LibTorch's callers do not tell from a failure of the library.
void check_environment();

// After check_environment(): "default" is the process's setting now.
kernels::conv2d::Accuracy resolve(Accuracy accuracy);

// A batch or one image, in place: neither layout nor alignment matters. Steps
// along dimensions of size 1 are 0, for torch leaves them undefined.
template <typename T>
kernels::conv2d::View<T> view(const at::Tensor& tensor) {
  const auto sizes = tensor.sizes();
  const auto strides = tensor.strides();
  const int64_t skip = tensor.dim() - 4;  // -1 for one image
  const auto step = [&](int64_t dimension) -> int64_t {
    const int64_t i = dimension + skip;
    return i < 0 || sizes[i] == 1 ? 0 : strides[i];
  };
  T* data;
  if constexpr (std::is_const_v<T>) {
    data = static_cast<T*>(tensor.const_data_ptr());
  } else {
    data = static_cast<T*>(tensor.mutable_data_ptr());
  }
  return {data, step(0), step(1), step(2), step(3)};
}

// function(T()) with the kernels' type for a dtype of has_kernel().
template <typename Function>
auto with_element(at::ScalarType type, const Function& function) {
  if (type == at::kDouble) return function(double());
  if (type == at::kBFloat16) return function(kernels::BFloat16());
  return function(float());
}

}  // namespace convship::ops
