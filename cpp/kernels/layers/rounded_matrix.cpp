#include "kernels/layers/rounded_matrix.h"

namespace convship::kernels {

using conv2d::Rounding;

RoundedMatrix::RoundedMatrix(const float* weight,
                             int64_t rows,
                             int64_t features,
                             const Rounding& rounding)
    : rounding_(rounding) {
  if (rounding.kind == Rounding::Kind::bfloat16) {
    halves_.reserve(rows * features);
    for (int64_t i = 0; i < rows * features; ++i) halves_.push_back(to_bfloat16(weight[i]));
    return;
  }
  bytes_.reserve(rows * features);
  scale_.reserve(rows);
  for (int64_t row = 0; row < rows; ++row, weight += features) {
    const float step = conv2d::weight_step(weight, features);
    scale_.push_back(step * rounding.scale);
    for (int64_t i = 0; i < features; ++i) {
      bytes_.push_back(conv2d::weight_level(weight[i], step));
    }
  }
}

void RoundedMatrix::fill(LinearTask& task) const {
  task.weight_bfloat16 = halves_.empty() ? nullptr : halves_.data();
  task.weight_int8 = bytes_.empty() ? nullptr : bytes_.data();
  task.scale = scale_.data();
}

float RoundedMatrix::input(float value) const {
  if (rounding_.kind == Rounding::Kind::bfloat16) return rounding_(value);
  return static_cast<float>(rounding_.level(value) - rounding_.zero_point);
}

}  // namespace convship::kernels
