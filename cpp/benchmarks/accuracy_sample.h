// Random convolutions with their exact results: what the error rule of
// docs/accuracy.md is measured on.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/conv2d/geometry.h"

namespace convship::accuracy {

// Distribution of the inputs; weights are always normal.
enum class Data {
  normal,
  rectified,  // max(0, normal): what follows a ReLU
  sparse,     // the same with 90 % zeros
  outliers,   // rectified, one value in 1000 a thousand times as large
};

const char* data_name(Data data);

// Square kernel, padding that keeps the image's size, no bias, no pooling.
struct Sample {
  kernels::conv2d::Geometry geometry;
  std::vector<float> x;           // [channels][28][28]
  std::vector<float> weight;      // [64][channels][taps][taps]
  std::vector<double> exact;      // [64][28][28], summed in double precision
  std::vector<double> magnitude;  // sum of |x w|
  std::vector<float> chain;       // the baseline: one float32 FMA after the other
};

Sample draw(Data data, int64_t taps, int64_t channels, uint32_t seed);

}  // namespace convship::accuracy
