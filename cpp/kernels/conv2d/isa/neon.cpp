// Advanced SIMD, which every 64-bit Arm CPU has.
#define CONVSHIP_REGISTERS 32
#include "kernels/conv2d/isa/loops-inl.h"

static_assert(HWY_TARGET == HWY_NEON, "the compiler's flags must allow this set, and no more");

namespace convship::kernels {

const InstructionSet kNeon = conv2d::instruction_set("neon");

}  // namespace convship::kernels
