// Values of chance, the same in every run.
#pragma once

#include <cstdint>
#include <vector>

namespace convship::testing {

// In [0, 1); `seed` goes on, for the next ones. The generator is the one of
// Numerical Recipes (Press et al.), "quick and dirty".
inline void fill(std::vector<float>& values, std::uint32_t& seed) {
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 8) / 16777216.0f;
  }
}

}  // namespace convship::testing
