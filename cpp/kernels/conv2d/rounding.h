// Narrower numbers for what a convolution multiplies. Weights and inputs are
// float32 in memory and rounded on the way; sums and results stay float32.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/bfloat16.h"
#include "kernels/conv2d/levels.h"

namespace convship::kernels::conv2d {

// What a layer's input is rounded to, and its weights with it.
struct Rounding {
  enum class Kind {
    none,
    bfloat16,
    // Inputs to scale * (k - zero_point), k in [0, 255]; weights to 255 levels
    // around 0, symmetric, each output channel with a scale of its own.
    int8,
  };
  Kind kind = Kind::none;
  float scale = 1;
  int32_t zero_point = 0;

  explicit operator bool() const { return kind != Kind::none; }
  bool operator==(const Rounding&) const = default;

  // As torch.fake_quantize_per_tensor_affine numbers levels; NaN has the lowest.
  int32_t level(float value) const {
    const float k = std::nearbyint(value * (1 / scale)) + static_cast<float>(zero_point);
    return k > 0 ? static_cast<int32_t>(std::min(k, 255.0f)) : 0;
  }
  float operator()(float value) const {
    switch (kind) {
      case Kind::none:
        return value;
      case Kind::bfloat16:
        return to_float(to_bfloat16(value));
      case Kind::int8:
        return scale * static_cast<float>(level(value) - zero_point);
    }
    return value;
  }
};

// As loops are told.
inline Levels levels_of(const Rounding& rounding) {
  return {1 / rounding.scale, rounding.zero_point};
}

constexpr int32_t kMostLevel = 127;  // of a weight

// The step between the levels of one output channel's weights; 0 where all of
// them are 0.
inline float weight_step(const float* weight, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(weight[i]));
  return largest / kMostLevel;
}

inline int8_t weight_level(float weight, float step) {
  return static_cast<int8_t>(step > 0 ? std::nearbyint(weight / step) : 0.0f);
}

// Whether these weights, [rows, count], are what such layers multiply: bfloat16,
// or for each row 255 levels up to its largest, which is what post-training
// quantization leaves, batch norm folded or not. Others would be rounded again.
inline bool are_rounded(const float* weight, int64_t rows, int64_t count, Rounding::Kind kind) {
  for (int64_t row = 0; row < rows; ++row, weight += count) {
    const float step = weight_step(weight, count);
    for (int64_t i = 0; i < count; ++i) {
      if (!std::isfinite(weight[i])) return false;
      if (kind == Rounding::Kind::bfloat16 && to_float(to_bfloat16(weight[i])) != weight[i]) {
        return false;
      }
      const float level = step > 0 ? weight[i] / step : 0;
      if (kind == Rounding::Kind::int8 && std::abs(level - std::nearbyint(level)) > 0.01f) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace convship::kernels::conv2d
