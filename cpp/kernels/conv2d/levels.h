// How loops over 8-bit integers number their inputs (rounding.h). Plain data, see tasks.h.
#pragma once

#include <cstdint>

namespace convship::kernels::conv2d {

struct Levels {
  float inverse_scale;
  int32_t zero_point;  // the level of 0
};

}  // namespace convship::kernels::conv2d
