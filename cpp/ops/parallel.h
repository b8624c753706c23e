// LibTorch's thread pool as the kernels' Parallel.
#pragma once

#include "kernels/parallel.h"

namespace convship::ops {

// Serial in a forked child: the threads of an OpenMP pool do not survive a
// fork, and waiting for them would hang for ever.
const kernels::Parallel& torch_threads();

}  // namespace convship::ops
