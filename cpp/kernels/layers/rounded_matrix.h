// A linear layer's weights in the numbers that its input is rounded to: half or
// a quarter of the bytes, which is what such layers spend their time on.
#pragma once

#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/conv2d/rounding.h"
#include "kernels/layers/tasks.h"

namespace convship::kernels {

class RoundedMatrix {
 public:
  // weight [rows, features], rounded already (see are_rounded).
  RoundedMatrix(const float* weight,
                int64_t rows,
                int64_t features,
                const conv2d::Rounding& rounding);

  // Sets the task's weights.
  void fill(LinearTask& task) const;
  // A value of the input, as the task multiplies it.
  float input(float value) const;

 private:
  conv2d::Rounding rounding_;
  std::vector<BFloat16> halves_;
  std::vector<int8_t> bytes_;
  std::vector<float> scale_;
};

}  // namespace convship::kernels
