// What a graph computes of constants alone.
#pragma once

#include <torch/csrc/jit/api/module.h>

namespace convship::ops::lowering {

// Tensors of a frozen module's forward that follow from constants become constants: freezing
// leaves views of them, and what is computed of views, as tables of positions are; and some
// weights, as those of torch's MultiheadAttention. Nothing that is written to.
void fold_constants(const torch::jit::Module& frozen);

}  // namespace convship::ops::lowering
