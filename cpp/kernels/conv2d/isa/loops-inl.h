// All loops over vectors, for the instruction set that the including file is
// compiled for. That file defines CONVSHIP_REGISTERS, the number of vector
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
#include "kernels/conv2d/isa/interleave-inl.h"
//
#include "kernels/conv2d/isa/pooling-inl.h"
//
#include "kernels/conv2d/isa/channels-inl.h"
//
#include "kernels/conv2d/isa/columns-inl.h"
//
#include "kernels/conv2d/isa/winners-inl.h"
//
#include "kernels/conv2d/isa/winograd-inl.h"
//
#include "kernels/conv2d/isa/peak-inl.h"
//
#include "kernels/layers/isa/layers-inl.h"

template <typename A>
constexpr Loops<A> kLoops = {
    .lanes = static_cast<int>(hn::MaxLanes(hn::ScalableTag<A>())),
    .interleave = interleave<A>,
    .transpose = transpose_matrix<A>,
    .channels = channels<A>,
    .columns_channels = kColumnsChannels,
    .columns_split = columns_split<A>,
    .columns = columns<A>,
    .winners_to_weight = winners<true, A>,
    .winners_to_image = winners<false, A>,
    .fma_loop = fma_loop<A>,
};

constexpr InstructionSet instruction_set(const char* name) {
  return {.name = name,
          .single = kLoops<float>,
          .twofold = kLoops<double>,
          .layers = kLayerLoops,
          .winograd_2x2_3x3 = kWinogradLoops<Winograd<2, 3>, float>,
          .winograd_4x4_3x3 = kWinogradLoops<Winograd<4, 3>, float>,
          .winograd_2x2_5x5 = kWinogradLoops<Winograd<2, 5>, float>};
}

}  // namespace
}  // namespace convship::kernels::conv2d
