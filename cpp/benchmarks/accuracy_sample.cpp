#include "benchmarks/accuracy_sample.h"

#include <algorithm>
#include <cmath>
#include <random>

// FMA is an instruction of its own only from this level on; without it each
// one is a call.
#if defined(__x86_64__)
#define CONVSHIP_FMA_CLONES [[gnu::target_clones("default", "arch=x86-64-v3")]]
#else
#define CONVSHIP_FMA_CLONES
#endif

namespace convship::accuracy {
namespace {

constexpr int64_t kSize = 28;
constexpr int64_t kOutputs = 64;

kernels::conv2d::Geometry geometry_of(int64_t taps, int64_t channels) {
  kernels::conv2d::Geometry g{};
  g.n = 1;
  g.c_in = channels;
  g.c_out = kOutputs;
  g.kernel = {taps, taps};
  g.padding = {taps / 2, taps / 2};
  g.groups = 1;
  g.stride = g.dilation = g.pool_size = g.pool_stride = {1, 1};
  g.image = g.conv = g.pooled = {kSize, kSize};
  return g;
}

std::vector<float> inputs(Data data, int64_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> chance;
  std::vector<float> x(count);
  for (float& value : x) {
    value = normal(random);
    if (data != Data::normal) value = std::max(value, 0.0f);
    // A rectified normal has half of its values left.
    if (data == Data::sparse && chance(random) >= 0.2f) value = 0;
    if (data == Data::outliers && chance(random) < 0.001f) value *= 1000;
  }
  return x;
}

// With zeros around each plane, which add nothing to a sum.
std::vector<float> padded(const std::vector<float>& x, int64_t channels, int64_t margin) {
  const int64_t side = kSize + 2 * margin;
  std::vector<float> result(channels * side * side);
  for (int64_t row = 0; row < channels * kSize; ++row) {
    const int64_t to = (row / kSize * side + row % kSize + margin) * side + margin;
    std::copy_n(x.data() + row * kSize, kSize, result.data() + to);
  }
  return result;
}

struct Row {
  float* chain;
  double* exact;
  double* magnitude;
};

// One row of one output channel; x is the padded row above it.
CONVSHIP_FMA_CLONES
void sum_row(const float* x, const float* weight, int64_t channels, int64_t taps, const Row& row) {
  const int64_t side = kSize + taps - 1;
  float chain[kSize] = {};
  double exact[kSize] = {}, magnitude[kSize] = {};
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < taps; ++i) {
      for (int64_t j = 0; j < taps; ++j) {
        const float w = *weight++;
        const float* from = x + (c * side + i) * side + j;
        for (int64_t k = 0; k < kSize; ++k) {
          chain[k] = std::fma(from[k], w, chain[k]);
          const double product = static_cast<double>(from[k]) * static_cast<double>(w);
          exact[k] += product;
          magnitude[k] += std::abs(product);
        }
      }
    }
  }
  std::copy_n(chain, kSize, row.chain);
  std::copy_n(exact, kSize, row.exact);
  std::copy_n(magnitude, kSize, row.magnitude);
}

}  // namespace

const char* data_name(Data data) {
  switch (data) {
    case Data::normal:
      return "normal";
    case Data::rectified:
      return "rectified";
    case Data::sparse:
      return "sparse";
    case Data::outliers:
      return "outliers";
  }
  return "unknown";
}

Sample draw(Data data, int64_t taps, int64_t channels, uint32_t seed) {
  std::mt19937 random(seed);
  Sample s;
  s.geometry = geometry_of(taps, channels);
  s.x = inputs(data, channels * kSize * kSize, random);
  s.weight = inputs(Data::normal, kOutputs * channels * taps * taps, random);
  const int64_t count = kOutputs * kSize * kSize;
  s.exact.resize(count);
  s.magnitude.resize(count);
  s.chain.resize(count);
  const std::vector<float> x = padded(s.x, channels, taps / 2);
  for (int64_t row = 0; row < kOutputs * kSize; ++row) {
    const float* weight = s.weight.data() + row / kSize * channels * taps * taps;
    const int64_t at = row * kSize;
    sum_row(x.data() + row % kSize * (kSize + taps - 1), weight, channels, taps,
            {s.chain.data() + at, s.exact.data() + at, s.magnitude.data() + at});
  }
  return s;
}

}  // namespace convship::accuracy
