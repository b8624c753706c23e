#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "verbs.h"

namespace convship::apps {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

struct Arguments {
  ModelArguments model;
  int batch = 1;
  double seconds = 1;
};

// Reproducible values in [-1, 1): latency must not depend on a random seed.
std::vector<float> filler(std::size_t count) {
  std::vector<float> values(count);
  std::uint32_t state = 1;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;  // Numerical Recipes' linear congruential generator
    value = static_cast<float>(state >> 8) / static_cast<float>(1 << 23) - 1.0f;
  }
  return values;
}

double percentile(const std::vector<double>& sorted, double fraction) {
  return sorted[static_cast<std::size_t>(fraction * static_cast<double>(sorted.size() - 1) + 0.5)];
}

std::vector<double> measure(const Model& model, const NamedView& input, double seconds) {
  constexpr int kWarmUp = 20, kFewest = 20;
  for (int i = 0; i < kWarmUp; ++i) model.run({input});
  std::vector<double> microseconds;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < end || microseconds.size() < kFewest) {
    const auto start = Clock::now();
    model.run({input});
    microseconds.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::sort(microseconds.begin(), microseconds.end());
  return microseconds;
}

int bench(Arguments& arguments) {
  const Model model = arguments.model.load();
  if (model.labels().empty()) {
    throw Error(ErrorCode::usage,
                arguments.model.path.string() +
                    ": bench needs a classifier exported by convship, whose input it knows");
  }
  const json input = json::parse(model.manifest()).at("inputs").at(0);
  std::vector<std::int64_t> shape;
  for (const json& dim : input.at("shape")) {
    shape.push_back(dim.is_null() ? arguments.batch : dim.get<std::int64_t>());
  }
  const auto count =
      std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  const std::vector<float> values = filler(static_cast<std::size_t>(count));
  const auto times = measure(model, {input.at("name"), {values.data(), DType::float32, shape, {}}},
                             arguments.seconds);
  const Build built = build();
  const json result = {{"environment",
                        {{"convship", built.convship},
                         {"torch", built.torch},
                         {"isa", built.isa},
                         {"threads", threads()}}},
                       {"results",
                        {{{"rung", "native " + arguments.model.backend},
                          {"batch", arguments.batch},
                          {"threads", threads()},
                          {"calls", times.size()},
                          {"p50_us", percentile(times, 0.5)},
                          {"p90_us", percentile(times, 0.9)},
                          {"p99_us", percentile(times, 0.99)}}}}};
  if (arguments.model.json) {
    std::cout << result.dump() << '\n';
  } else {
    const json& row = result["results"][0];
    std::cout << row["rung"].get<std::string>() << ", batch " << row["batch"] << ", "
              << row["threads"] << " threads: p50 " << row["p50_us"] << " us, p90 " << row["p90_us"]
              << " us, p99 " << row["p99_us"] << " us over " << row["calls"] << " calls\n";
  }
  return kOk;
}

}  // namespace

Action add_bench(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  arguments->model.add_to(verb);
  verb.add_option("--batch", arguments->batch, "Images per call")->check(CLI::Range(1, 4096));
  verb.add_option("--seconds", arguments->seconds, "How long to measure")
      ->check(CLI::Range(0.01, 3600.0));
  return [arguments] { return bench(*arguments); };
}

}  // namespace convship::apps
