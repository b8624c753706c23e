// Shapes and strides of the caller's memory, before LibTorch sees them: it takes
// some wrong ones for defects of its own and ends the process.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "convship/model.h"

namespace convship::runtime {

// No address space is larger.
inline constexpr std::int64_t kMostBytes = std::int64_t{1} << 56;

// Bytes from the first element to behind the last one; 0 where there are none.
// Throws Error(usage), `subject` in front, for what no memory can be. Empty
// `strides` mean contiguous.
std::int64_t checked_extent(DType dtype,
                            std::span<const std::int64_t> shape,
                            std::span<const std::int64_t> strides,
                            const std::string& subject);

}  // namespace convship::runtime
