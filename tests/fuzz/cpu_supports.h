// Clang 14 does not know the levels of x86-64 that gcc's __builtin_cpu_supports
// does. Only the fuzz build includes this, before the one file that asks.
#pragma once

#include <string_view>

inline bool cpu_supports(std::string_view level) {
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  if (level == "x86-64-v3") return v3;
  return v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

#define __builtin_cpu_supports cpu_supports
