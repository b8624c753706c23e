// What the programs' test cases share: types, and what becomes of a failure.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "convolution_check.h"

TYPE_TO_STRING_AS("float", float);
TYPE_TO_STRING_AS("double", double);
TYPE_TO_STRING_AS("bfloat16", convship::kernels::BFloat16);

#define CONVSHIP_TYPES float, double, convship::kernels::BFloat16

namespace convolution_test {

// A broken kernel fails most cases; a few lines tell as much as all.
class Failures {
 public:
  bool enough() const { return count_ >= 5; }
  void note(const std::string& wrong) {
    if (wrong.empty()) return;
    ++count_;
    FAIL_CHECK(wrong);
  }

 private:
  int count_ = 0;
};

// One image, no padding anywhere, stride, dilation and windows of 1.
inline Geometry simple(int64_t c_in, Pair image, int64_t c_out, Pair kernel) {
  Geometry g{};
  g.n = g.groups = 1;
  g.c_in = c_in;
  g.image = image;
  g.c_out = c_out;
  g.kernel = kernel;
  g.stride = g.dilation = g.pool_size = g.pool_stride = {1, 1};
  return g;
}

}  // namespace convolution_test
