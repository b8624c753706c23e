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

}  // namespace convship
