// What served the calling thread's last call: for tests and reports.
#pragma once

#include "kernels/conv2d/family.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {

void note_run(const InstructionSet& isa, Family family);

}  // namespace convship::kernels::conv2d
