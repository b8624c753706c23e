// All loops over vectors, for the instruction set that the including file is
// compiled for. That file defines CONVSHIP_REGISTERS, the number of vector
// registers. Everything has internal linkage and nothing comes from the
// standard library: a function that the linker shares between files could end
// up with instructions that other CPUs lack.
#pragma once

#ifndef HWY_COMPILE_ONLY_STATIC
#error "Highway must use what the compiler's flags allow, in this file alone"
#endif
#include <hwy/highway.h>

#include "kernels/conv2d/tasks.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
constexpr int kRegisters = CONVSHIP_REGISTERS;

#include "kernels/conv2d/isa/transpose-inl.h"
//
#include "kernels/conv2d/isa/vectors-inl.h"
//
#include "kernels/conv2d/isa/channels-inl.h"
//
#include "kernels/conv2d/isa/peak-inl.h"

template <typename A>
constexpr Loops<A> kLoops = {
    .lanes = static_cast<int>(hn::MaxLanes(hn::ScalableTag<A>())),
    .channels = channels<A>,
    .fma_loop = fma_loop<A>,
};

}  // namespace
}  // namespace convship::kernels::conv2d
