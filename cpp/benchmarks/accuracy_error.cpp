#include "benchmarks/accuracy_error.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>

#include "kernels/conv2d/channels.h"
#include "kernels/conv2d/columns.h"
#include "kernels/conv2d/plain_pack.h"
#include "kernels/conv2d/winograd.h"
#include "kernels/instruction_set.h"
#include "kernels/parallel.h"

namespace convship::accuracy {
namespace {

using namespace kernels;
using namespace kernels::conv2d;

std::unique_ptr<Pack<float>> make_pack(Family family, const Sample& s) {
  const InstructionSet& isa = instruction_set(active_instruction_set());
  const Geometry& g = s.geometry;
  const WeightShape shape{g.c_out, g.c_in, g.kernel, g.groups};
  const float* weight = s.weight.data();
  if (family == Family::plain) return std::make_unique<PlainPack<float>>(shape, weight, nullptr);
  if (isa.single.lanes == 0) {
    throw std::runtime_error(std::string(isa.name) + " has no loops over vectors to measure");
  }
  if (family == Family::channels) {
    return std::make_unique<ChannelsPack<float>>(isa.single, shape, weight, nullptr);
  }
  if (family == Family::columns) {
    return std::make_unique<ColumnsPack<float>>(isa.single, shape, weight, nullptr);
  }
  return std::make_unique<WinogradPack<float>>(isa, family, shape, weight, nullptr);
}

std::vector<float> run(Family family, const Sample& s) {
  const Geometry& g = s.geometry;
  std::vector<float> y(s.exact.size(), std::numeric_limits<float>::quiet_NaN());
  const View<const float> input = nchw(s.x.data(), g.c_in, g.image);
  const View<float> output = nchw(y.data(), g.c_out, g.pooled);
  const View<const float> residual{};
  const WindowIndex index;
  const Call<float> call{g, Activation::none, input, output, residual, index};
  if (!make_pack(family, s)->run(call, Serial()).empty()) {
    throw std::runtime_error(std::string(family_name(family)) + " refuses a sample");
  }
  return y;
}

}  // namespace

Way baseline() {
  return {"baseline", [](const Sample& s) { return s.chain; }};
}

Way loop(Family family) {
  return {family_name(family), [family](const Sample& s) { return run(family, s); }};
}

std::vector<float> errors(const Sample& sample, const std::vector<float>& y) {
  std::vector<float> result(y.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double error = std::abs(static_cast<double>(y[i]) - sample.exact[i]);
    result[i] = error == 0 ? 0.0f : static_cast<float>(error / sample.magnitude[i]);
  }
  return result;
}

std::vector<std::vector<float>> errors_of(
    const std::vector<Way>& ways, Data data, int64_t taps, int64_t channels, uint32_t seeds) {
  std::vector<std::vector<float>> all(ways.size());
  for (uint32_t seed = 0; seed < seeds; ++seed) {
    const Sample sample = draw(data, taps, channels, seed);
    for (std::size_t i = 0; i < ways.size(); ++i) {
      const std::vector<float> some = errors(sample, ways[i].sums(sample));
      all[i].insert(all[i].end(), some.begin(), some.end());
    }
  }
  return all;
}

Quantiles quantiles(std::vector<float> errors) {
  const auto at = [&](double share) {
    const auto place = errors.begin() +
                       static_cast<std::ptrdiff_t>(share * static_cast<double>(errors.size() - 1));
    std::nth_element(errors.begin(), place, errors.end());
    return static_cast<double>(*place);
  };
  return {at(0.5), at(0.999), at(1)};
}

Quantiles multiples(const Quantiles& errors, const Quantiles& baseline) {
  return {errors.median / baseline.median, errors.high / baseline.high,
          errors.most / baseline.most};
}

double most_allowed(Data data) {
  if (data == Data::rectified) return 2;
  if (data == Data::sparse) return 5;
  return std::numeric_limits<double>::infinity();
}

}  // namespace convship::accuracy
