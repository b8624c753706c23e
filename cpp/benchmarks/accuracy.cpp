// Measures how exact our loops and LibTorch are; scripts/accuracy makes
// docs/accuracy.md of what it prints.
//   accuracy [--seeds N]
#include <ATen/Parallel.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <torch/version.h>

#include <cmath>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "benchmarks/accuracy_error.h"
#include "convship/isa.h"
#include "kernels/conv2d/winograd.h"

namespace {

using namespace convship::accuracy;
using convship::kernels::conv2d::Family;
using convship::kernels::conv2d::family_name;
using convship::kernels::conv2d::fewest_channels;
using convship::kernels::conv2d::winograd_shape;
using nlohmann::json;

// 50,176 errors a seed, 800 of all above the 99.9th percentile: halves of them
// differ by 2 % where the rule is decided.
constexpr uint32_t kSeeds = 16;
constexpr int64_t kChannels[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512};
constexpr Data kAllData[] = {Data::normal, Data::rectified, Data::sparse, Data::outliers};
constexpr Family kWinograd[] = {Family::winograd_2x2_3x3, Family::winograd_4x4_3x3,
                                Family::winograd_2x2_5x5};

Way torch_way(const char* name, at::MemoryFormat format) {
  return {name, [format](const Sample& s) {
            const auto& g = s.geometry;
            const auto tensor = [&](const std::vector<float>& values, at::IntArrayRef sizes) {
              return at::from_blob(const_cast<float*>(values.data()), sizes).contiguous(format);
            };
            const at::Tensor y =
                at::conv2d(tensor(s.x, {1, g.c_in, g.image.h, g.image.w}),
                           tensor(s.weight, {g.c_out, g.c_in, g.kernel.h, g.kernel.w}), {},
                           at::IntArrayRef{1, 1}, at::IntArrayRef{g.padding.h, g.padding.w})
                    .contiguous();
            return std::vector<float>(y.const_data_ptr<float>(),
                                      y.const_data_ptr<float>() + y.numel());
          }};
}

std::vector<Way> ways_for(int64_t taps) {
  std::vector<Way> ways = {baseline(), loop(Family::channels), loop(Family::columns)};
  for (const Family family : kWinograd) {
    if (winograd_shape(family).taps == taps) ways.push_back(loop(family));
  }
  ways.push_back(torch_way("torch", at::MemoryFormat::Contiguous));
  ways.push_back(torch_way("torch channels_last", at::MemoryFormat::ChannelsLast));
  return ways;
}

// JSON has no infinity.
json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

json as_json(const Quantiles& q) {
  return {{"median", number(q.median)}, {"high", number(q.high)}, {"most", number(q.most)}};
}

Quantiles part(const std::vector<float>& all, std::size_t number, std::size_t parts) {
  const std::size_t size = all.size() / parts;
  const auto begin = all.begin() + static_cast<std::ptrdiff_t>(number * size);
  return quantiles({begin, begin + static_cast<std::ptrdiff_t>(size)});
}

// One row: multiples of the baseline's error, and of each half of the samples
// for how far chance may reach.
json measure(Data data, int64_t taps, int64_t channels, uint32_t seeds) {
  const std::vector<Way> ways = ways_for(taps);
  const auto all = errors_of(ways, data, taps, channels, seeds);
  json results;
  for (std::size_t i = 1; i < ways.size(); ++i) {
    json& result = results[ways[i].name];
    result = as_json(multiples(part(all[i], 0, 1), part(all[0], 0, 1)));
    for (const std::size_t half : {0, 1}) {
      result["halves"].push_back(as_json(multiples(part(all[i], half, 2), part(all[0], half, 2))));
    }
  }
  return {{"data", data_name(data)},
          {"taps", taps},
          {"channels", channels},
          {"baseline", as_json(part(all[0], 0, 1))},
          {"ways", results}};
}

json measure_all(uint32_t seeds) {
  json result = {{"isa", convship::active_isa()}, {"torch", TORCH_VERSION}, {"seeds", seeds}};
  for (const Data data : kAllData) {
    result["limits"][data_name(data)] = number(most_allowed(data));
  }
  for (const Family family : kWinograd) {
    result["variants"].push_back({{"name", family_name(family)},
                                  {"taps", winograd_shape(family).taps},
                                  {"fewest_channels", fewest_channels(family)}});
  }
  for (const int64_t taps : {3, 5}) {
    for (const int64_t channels : kChannels) {
      for (const Data data : kAllData) {
        result["rows"].push_back(measure(data, taps, channels, seeds));
      }
      std::cerr << taps << 'x' << taps << ", " << channels << " channels\n";
    }
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) try {
  const bool given = argc == 3 && std::string(argv[1]) == "--seeds";
  const int seeds = given ? std::stoi(argv[2]) : static_cast<int>(kSeeds);
  if ((argc != 1 && !given) || seeds < 2) {
    std::cerr << "accuracy: usage: accuracy [--seeds N], N at least 2\n";
    return 2;
  }
  // How LibTorch sums may depend on its threads.
  at::set_num_threads(1);
  const c10::InferenceMode inference;
  std::cout << measure_all(static_cast<uint32_t>(seeds)).dump(1) << '\n';
  return 0;
} catch (const std::exception& error) {
  std::cerr << "accuracy: " << error.what() << '\n';
  return 5;
}
