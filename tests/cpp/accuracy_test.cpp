#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <vector>

#include "benchmarks/accuracy_error.h"
#include "convship/isa.h"
#include "kernels/conv2d/convolution.h"
#include "kernels/conv2d/winograd.h"
#include "kernels/instruction_set.h"
#include "kernels/parallel.h"

namespace {

using namespace convship::accuracy;
using namespace convship::kernels;
using namespace convship::kernels::conv2d;

constexpr Family kWinograd[] = {Family::winograd_2x2_3x3, Family::winograd_4x4_3x3,
                                Family::winograd_2x2_5x5};

// Four seeds move the 99.9th percentile by up to 6 %.
constexpr uint32_t kSeeds = 4;
constexpr double kSampling = 1.1;

// Calls it with each instruction set that has loops of ours.
template <typename Check>
void for_each_isa(const Check& check) {
  const std::string before = convship::active_isa();
  for (const std::string& name : convship::available_isas()) {
    convship::set_isa(name);
    if (instruction_set(active_instruction_set()).single.lanes == 0) continue;
    CAPTURE(name);
    check();
  }
  convship::set_isa(before);
}

Quantiles measured(Family family, Data data, int64_t taps, int64_t channels) {
  const auto all = errors_of({baseline(), loop(family)}, data, taps, channels, kSeeds);
  return multiples(quantiles(all[1]), quantiles(all[0]));
}

Family chosen(int64_t taps, int64_t channels, Accuracy accuracy) {
  const Sample s = draw(Data::normal, taps, channels, 0);
  const WeightShape shape{s.geometry.c_out, channels, s.geometry.kernel, 1};
  return Convolution<float>(s.weight.data(), nullptr, shape, accuracy).family(s.geometry);
}

// Output channel 0, without padding: every tap then meets a value.
std::vector<float> without_padding(const Sample& s, Accuracy accuracy) {
  Geometry g = s.geometry;
  g.padding = {0, 0};
  g.conv = g.pooled = {g.image.h - g.kernel.h + 1, g.image.w - g.kernel.w + 1};
  const int64_t plane = g.pooled.h * g.pooled.w;
  std::vector<float> y(g.c_out * plane, -1.0f);
  const WeightShape shape{g.c_out, g.c_in, g.kernel, 1};
  const Convolution<float> conv(s.weight.data(), nullptr, shape, accuracy);
  conv.run(g, Activation::none, nchw(s.x.data(), g.c_in, g.image),
           nchw(y.data(), g.c_out, g.pooled), {}, {}, Serial());
  y.resize(plane);
  return y;
}

}  // namespace

TEST_CASE("Winograd keeps the error rule from its fewest channels on") {
  for_each_isa([] {
    for (const Family family : kWinograd) {
      for (const Data data : {Data::rectified, Data::sparse}) {
        CAPTURE(std::string(family_name(family)));
        CAPTURE(std::string(data_name(data)));
        const Quantiles q =
            measured(family, data, winograd_shape(family).taps, fewest_channels(family));
        CHECK(q.median <= kSampling * most_allowed(data));
        CHECK(q.high <= kSampling * most_allowed(data));
      }
    }
  });
}

TEST_CASE("the error rule refuses Winograd 4x4 for three channels") {
  for_each_isa([] {
    for (const Data data : {Data::rectified, Data::sparse}) {
      const Quantiles q = measured(Family::winograd_4x4_3x3, data, 3, 3);
      CHECK(q.median > 2 * most_allowed(data));
      CHECK(q.high > 2 * most_allowed(data));
    }
  });
}

TEST_CASE("direct sums are as exact as one chain") {
  for_each_isa([] {
    for (const Family family : {Family::channels, Family::columns}) {
      const Quantiles q = measured(family, Data::rectified, 3, 64);
      CHECK(q.median < kSampling);
      CHECK(q.high < kSampling);
    }
  });
}

TEST_CASE("accuracy fast takes Winograd where it keeps the rule and not below") {
  for_each_isa([] {
    for (const Family family : kWinograd) {
      CAPTURE(std::string(family_name(family)));
      const int64_t taps = winograd_shape(family).taps, fewest = fewest_channels(family);
      CHECK(chosen(taps, fewest, Accuracy::fast) == family);
      CHECK(chosen(taps, fewest - 1, Accuracy::fast) != family);
      CHECK(chosen(taps, fewest, Accuracy::direct) < Family::winograd_2x2_3x3);
    }
  });
}

TEST_CASE("weights that are infinite, or are once transformed, mean the same in fast") {
  for_each_isa([] {
    for (int tap = 0; tap < 9; ++tap) {
      CAPTURE(tap);
      Sample s = draw(Data::normal, 3, 64, 0);
      s.weight[tap] = std::numeric_limits<float>::infinity();
      CHECK(without_padding(s, Accuracy::fast) == without_padding(s, Accuracy::direct));
      s.weight[tap] = std::numeric_limits<float>::max();
      s.x.assign(s.x.size(), 0.0f);
      CHECK(without_padding(s, Accuracy::fast) == without_padding(s, Accuracy::direct));
    }
  });
}
