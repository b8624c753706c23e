// How calls with accuracy "default" sum: a setting of the process. Names are
// those of the op's argument: "direct" sums products directly, "fast" may use
// sums that round a little differently. Thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "convship/export.h"

namespace convship {

// "fast", unless set_default_accuracy or the environment variable
// CONVSHIP_ACCURACY said otherwise. Throws std::invalid_argument when that
// names neither.
CONVSHIP_API std::string default_accuracy();

// For weights that are packed, and calls that are made, from now on. Throws
// std::invalid_argument when `name` is neither "direct" nor "fast".
CONVSHIP_API void set_default_accuracy(std::string_view name);

}  // namespace convship
