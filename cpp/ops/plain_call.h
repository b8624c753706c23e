// Calls for which LibTorch's dispatcher would do nothing but find the kernel.
#pragma once

#include <ATen/core/Tensor.h>

namespace convship::ops {

// Whether the thread has no autocast, tracer, transform, mode or profiler on.
bool no_modes();

// A tensor of the CPU without flags, subclass or transform. Says nothing about
// derivatives.
bool is_plain(const at::Tensor& tensor);

// Whether a derivative of a call with this tensor is asked for, in either mode.
bool needs_derivative(const at::Tensor& tensor);

// Whether forward-mode differentiation tracks the tensor.
bool has_tangent(const at::Tensor& tensor);

}  // namespace convship::ops
