// AVX2 with FMA (x86-64-v3).
#define CONVSHIP_REGISTERS 16
#include "kernels/conv2d/isa/loops-inl.h"

static_assert(HWY_TARGET == HWY_AVX2, "the compiler's flags must allow this set, and no more");

namespace convship::kernels {

const InstructionSet kAvx2 = conv2d::instruction_set("avx2");

}  // namespace convship::kernels
