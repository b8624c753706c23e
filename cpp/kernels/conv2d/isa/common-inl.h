// What every file begins with that is compiled for an instruction set, and the
// channels loop. That file defines CONVSHIP_REGISTERS, the number of vector
// registers. Everything has internal linkage and nothing comes from the
// standard library: a function that the linker shares between files could end
// up with instructions that other CPUs lack.
#pragma once

#ifndef HWY_COMPILE_ONLY_STATIC
#error "Highway must use what the compiler's flags allow, in this file alone"
#endif
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "kernels/conv2d/tasks.h"
#include "kernels/instruction_set.h"

// Before loops over registers: unrolled early, their arrays never see memory.
#define CONVSHIP_UNROLL _Pragma("GCC unroll 36")

namespace convship::kernels::conv2d {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
constexpr int kRegisters = CONVSHIP_REGISTERS;

#include "kernels/conv2d/isa/transpose-inl.h"
//
#include "kernels/conv2d/isa/vectors-inl.h"
//
#include "kernels/conv2d/isa/pooling-inl.h"
//
#include "kernels/conv2d/isa/channels-inl.h"

}  // namespace
}  // namespace convship::kernels::conv2d
