// Activations of one value, for the loops without vectors.
#pragma once

#include <cmath>

#include "kernels/conv2d/geometry.h"

namespace convship::kernels::conv2d {

// NaN stays: written as choices and not as std::max, whose answer for NaN
// depends on the order of its operands.
template <typename A>
A activate(const Activation& activation, A x) {
  const auto relu6 = [](A v) { return v >= A(6) ? A(6) : v <= A(0) ? A(0) : v; };
  const auto sigmoid = [](A v) { return A(1) / (A(1) + std::exp(-v)); };
  switch (activation.kind) {
    case Activation::none:
      return x;
    case Activation::relu:
      return x <= A(0) ? A(0) : x;
    case Activation::relu6:
      return relu6(x);
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::hardsigmoid:
      return relu6(x + A(3)) / A(6);
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::hardswish:
      return x * (relu6(x + A(3)) / A(6));
    case Activation::gelu:
      return A(0.5) * x * (A(1) + std::erf(x * A(0.70710678118654752)));
    case Activation::gelu_tanh:
      return x * sigmoid(A(1.5957691216057308) * (x + A(0.044715) * x * x * x));
    case Activation::leaky_relu:
      return x > A(0) ? x : x * A(activation.a);
    case Activation::clamp:
      return x >= A(activation.b) ? A(activation.b) : x <= A(activation.a) ? A(activation.a) : x;
    case Activation::elu:
      return x > A(0) ? x * A(activation.b) : A(activation.a) * std::expm1(x);
    case Activation::tanh:
      return std::tanh(x);
    case Activation::mish:
      return x * std::tanh(std::log1p(std::exp(x)));
    case Activation::softplus:
      return x > A(20) ? x : std::log1p(std::exp(x));
    case Activation::abs:
      return std::abs(x);
    case Activation::erf:
      return std::erf(x);
    case Activation::exp:
      return std::exp(x);
    case Activation::log:
      return std::log(x);
    case Activation::power:
      if (activation.a == 0.5f) return std::sqrt(x);
      if (activation.a == -0.5f) return A(1) / std::sqrt(x);
      return std::pow(x, A(activation.a));
  }
  return x;
}

}  // namespace convship::kernels::conv2d
