// What a function with derivatives keeps for its backward pass.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include "ops/conv_pool2d.h"

namespace convship::ops {

inline Pair saved_pair(torch::autograd::AutogradContext* context, const char* name) {
  const auto values = context->saved_data[name].toIntVector();
  return {values[0], values[1]};
}

}  // namespace convship::ops
