// Instruction sets of the kernels: which ones this machine can run, which one
// is in use, choose one. Names are lower case: "baseline" is what every CPU of
// the architecture has. Thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "convship/export.h"

namespace convship {

// What this build and this CPU have in common, best first.
CONVSHIP_API std::vector<std::string> available_isas();

// The one that calls use from now on.
CONVSHIP_API std::string active_isa();

// Uses `name` for all further calls of the process. Throws
// std::invalid_argument when it is not available, naming those that are.
CONVSHIP_API void set_isa(std::string_view name);

// The instruction set whose loops served the calling thread's last conv_pool2d,
// and the name of the loop; empty before the first. Calls that go to LibTorch's
// ops, and those of empty batches, leave them alone.
CONVSHIP_API std::string last_isa();
CONVSHIP_API std::string last_family();

// Operations per second of fused multiply-adds (two each) in float32, on one
// core with the active instruction set's vectors and nothing but registers:
// the ceiling for a convolution that sums directly. The median over slices of
// 20 us; takes about `seconds`.
// Throws std::invalid_argument when that is not positive, or when the active
// instruction set has no loops over vectors.
CONVSHIP_API double fma_rate(double seconds);

}  // namespace convship
