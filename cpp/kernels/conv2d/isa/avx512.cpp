// AVX-512 F, BW, CD, DQ, VL (x86-64-v4).
#define CONVSHIP_REGISTERS 32
#include "kernels/conv2d/isa/loops-inl.h"

static_assert(HWY_TARGET == HWY_AVX3, "the compiler's flags must allow this set, and no more");

namespace convship::kernels {

const InstructionSet kAvx512 = conv2d::instruction_set("avx512");
// The same loops; beside them are those of amx_*.cpp.
const InstructionSet kAmx = conv2d::instruction_set("amx");

}  // namespace convship::kernels
