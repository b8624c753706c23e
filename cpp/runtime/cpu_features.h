// Whether native code that was compiled elsewhere can run on this CPU.
#pragma once

#include <string>

#include "manifest.h"

namespace convship::runtime {

// Empty where this CPU, and what the operating system lets programs use of it,
// has all that the code may use; otherwise what is missing, for messages.
std::string cpu_problem(const CompiledFor& compiled_for);

}  // namespace convship::runtime
