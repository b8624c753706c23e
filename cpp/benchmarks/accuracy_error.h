// Errors of our loops, and the rule that accuracy fast follows.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "benchmarks/accuracy_sample.h"
#include "kernels/conv2d/family.h"

namespace convship::accuracy {

// Something that computes a sample's convolution.
struct Way {
  std::string name;
  std::function<std::vector<float>(const Sample&)> sums;
};

Way baseline();

// The loop itself with the active instruction set, whatever choose() thinks of
// it. Throws std::runtime_error where it refuses a sample.
Way loop(kernels::conv2d::Family family);

// |y - exact| / sum |x w| for every result; infinite where something other than
// zero stands for a sum of zeros.
std::vector<float> errors(const Sample& sample, const std::vector<float>& y);

// Errors of each way over the same samples, seed after seed.
std::vector<std::vector<float>> errors_of(
    const std::vector<Way>& ways, Data data, int64_t taps, int64_t channels, uint32_t seeds);

struct Quantiles {
  double median;
  double high;  // 99.9th percentile
  double most;
};

Quantiles quantiles(std::vector<float> errors);
Quantiles multiples(const Quantiles& errors, const Quantiles& baseline);

// The rule: up to how many times the baseline's error a variant's median and
// 99.9th percentile may be. Infinite where the rule says nothing.
double most_allowed(Data data);

}  // namespace convship::accuracy
