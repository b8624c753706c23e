#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <sstream>
#include <thread>

#include "bench_environment.h"
#include "bench_input.h"
#include "bench_process.h"
#include "bench_worker.h"
#include "npy.h"
#include "verbs.h"

namespace convship::apps {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

struct BenchArguments {
  ModelArguments model;
  BenchInput input;
  std::string backend;  // empty: every rung
  fs::path image;
  double seconds = 1;
  int callers = 1;
  bool worker = false;
};

struct RungKind {
  const char* name;
  const char* backend;
  const char* accuracy;
};

constexpr std::array<RungKind, 3> kRungs{{{"native fast", "convship", "fast"},
                                          {"native direct", "convship", "direct"},
                                          {"native libtorch", "libtorch", "fast"}}};

// Short turns: what slows the machine down for a second hits every rung.
constexpr double kTurnSeconds = 0.05;
constexpr auto kPause = std::chrono::milliseconds(2);

// A folder that is gone afterwards.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "convship-bench-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      throw Error(ErrorCode::environment, name + ": cannot be created");
    }
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

struct Rung {
  const RungKind* kind = nullptr;
  std::unique_ptr<BenchProcess> process;
  std::vector<double> calls;
  // A median per turn; what is a difference is one of times of the same turn.
  std::vector<double> round_us, decode, preprocess, end_to_end;
  double error = 0;  // largest, over an output's largest value
  std::string problem;
};

double percentile(const std::vector<double>& sorted, double fraction) {
  return sorted[static_cast<std::size_t>(fraction * static_cast<double>(sorted.size() - 1) + 0.5)];
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return percentile(values, 0.5);
}

std::vector<double> ask(Rung& rung, const std::string& what, int callers) {
  std::this_thread::sleep_for(kPause);  // caches and clocks settle
  const json answer = rung.process->ask("measure " + what + " " + std::to_string(kTurnSeconds) +
                                        " " + std::to_string(callers));
  return answer["us"].get<std::vector<double>>();
}

struct Answers {
  std::vector<Tensor> tensors;
  bool narrow = false;  // the file's layers multiply less than float32
};

Answers answers(Rung& rung) {
  const TemporaryFolder folder;
  Answers found;
  const json written = rung.process->ask("write " + folder.path().string());
  for (const json& output : written["outputs"]) {
    found.tensors.push_back(read_npy(output["path"].get<std::string>()));
  }
  found.narrow = written["precision"] != "float32";
  return found;
}

// LibTorch as it is has the say. Rounding in float32 stays far below a
// thousandth of the largest value; bfloat16, or a wrong layer, does not. What
// multiplies narrower numbers may round them in another order, or not at all.
void compare(Rung& rung, const std::vector<Tensor>& expected) {
  const auto [given, narrow] = answers(rung);
  const double limit = narrow ? 5e-2 : 1e-3;
  bool alike = given.size() == expected.size();
  for (std::size_t i = 0; alike && i < given.size(); ++i) {
    alike = given[i].shape() == expected[i].shape() && given[i].dtype() == expected[i].dtype();
  }
  if (!alike) {
    rung.error = INFINITY;
    rung.problem = "gives other outputs than libtorch";
    return;
  }
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (given[i].dtype() != DType::float32) continue;  // `convship verify` compares all
    const auto a = given[i].values<float>(), b = expected[i].values<float>();
    double largest = std::numeric_limits<float>::min(), worst = 0;
    for (std::size_t k = 0; k < a.size(); ++k) {
      const double difference = std::abs(double{a[k]} - double{b[k]});
      largest = std::max(largest, std::abs(double{b[k]}));
      worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
    }
    rung.error = std::max(rung.error, worst / largest);
  }
  if (rung.error > limit) {
    std::ostringstream text;
    text << std::scientific << std::setprecision(1) << "output is off by " << rung.error
         << " of its largest value, more than " << limit;
    rung.problem = text.str();
  }
}

std::vector<std::string> worker_words(const BenchArguments& arguments, const RungKind& kind) {
  std::vector<std::string> words{"bench",     "--worker",
                                 "--backend", kind.backend,
                                 "--threads", std::to_string(arguments.model.options.threads),
                                 "--batch",   std::to_string(arguments.input.batch)};
  if (!arguments.input.size.empty()) {
    words.insert(words.end(), {"--size", arguments.input.size});
  }
  for (const std::string& file : arguments.input.files) {
    words.insert(words.end(), {"--input", file});
  }
  if (!arguments.image.empty()) {
    words.insert(words.end(), {"--image", arguments.image.string()});
  }
  for (const fs::path& library : arguments.model.options.op_libraries) {
    words.insert(words.end(), {"--op-library", library.string()});
  }
  if (arguments.model.options.allow_plain) words.emplace_back("--plain");
  words.insert(words.end(), {"--", arguments.model.path.string()});
  return words;
}

std::vector<Rung> start(const BenchArguments& arguments) {
  std::vector<Rung> rungs;
  for (const RungKind& kind : kRungs) {
    if (!arguments.backend.empty() && arguments.backend != kind.backend) continue;
    Rung& rung = rungs.emplace_back();
    rung.kind = &kind;
    rung.process =
        std::make_unique<BenchProcess>(worker_words(arguments, kind), kind.accuracy,
                                       arguments.model.options.threads * arguments.callers);
  }
  // The last is libtorch where it takes part.
  const std::vector<Tensor> expected = answers(rungs.back()).tensors;
  for (Rung& rung : rungs) compare(rung, expected);
  return rungs;
}

void measure(std::vector<Rung>& rungs, const BenchArguments& arguments) {
  std::vector<Rung*> turns;
  for (Rung& rung : rungs) {
    if (rung.problem.empty()) turns.push_back(&rung);
  }
  const int rounds = std::max(1, static_cast<int>(std::lround(arguments.seconds / kTurnSeconds)));
  std::mt19937 random(0);  // NOLINT: the same order each time
  for (int round = 0; round < rounds; ++round) {
    std::shuffle(turns.begin(), turns.end(), random);
    for (Rung* rung : turns) {
      const std::vector<double> calls = ask(*rung, "network", arguments.callers);
      rung->round_us.push_back(median(calls));
      rung->calls.insert(rung->calls.end(), calls.begin(), calls.end());
      if (arguments.image.empty()) continue;
      const double pixels_us = median(ask(*rung, "from_pixels", arguments.callers));
      const double whole_us = median(ask(*rung, "end_to_end", arguments.callers));
      rung->preprocess.push_back(pixels_us - rung->round_us.back());
      rung->decode.push_back(whole_us - pixels_us);
      rung->end_to_end.push_back(whole_us);
    }
  }
}

// The fields of `convship bench`; docs/benchmarks.md names them.
json row(Rung& rung, const BenchArguments& arguments) {
  const json& hello = rung.process->hello();
  json result = {{"rung", rung.kind->name},
                 {"kind", rung.kind->backend == std::string("libtorch") ? "stock" : "ours"},
                 {"batch", arguments.input.batch},
                 {"threads", hello["threads"]},
                 {"problem", rung.problem},
                 {"error", std::isfinite(rung.error) ? json(rung.error) : json("infinite")},
                 {"load_us", hello["load_us"]},
                 {"first_us", hello["first_us"]},
                 {"peak_mib", rung.process->peak_mib()}};
  if (arguments.callers > 1) result["callers"] = arguments.callers;
  if (!rung.problem.empty()) return result;
  std::sort(rung.calls.begin(), rung.calls.end());
  const double total = std::accumulate(rung.calls.begin(), rung.calls.end(), 0.0);
  const auto count = static_cast<double>(rung.calls.size());
  const double network_us = percentile(rung.calls, 0.5);
  result["calls"] = rung.calls.size();
  result["p50_us"] = network_us;
  result["p90_us"] = percentile(rung.calls, 0.9);
  result["p99_us"] = percentile(rung.calls, 0.99);
  result["images_per_s"] = 1e6 * count * arguments.input.batch * arguments.callers / total;
  result["round_us"] = rung.round_us;
  if (!rung.end_to_end.empty()) {
    result["stages_us"] = {{"decode", std::max(0.0, median(rung.decode))},
                           {"preprocess", std::max(0.0, median(rung.preprocess))},
                           {"network", network_us},
                           {"end_to_end", median(rung.end_to_end)}};
  }
  return result;
}

void print_report(const json& report) {
  const json& environment = report["environment"];
  std::cout << environment["cpu"].get<std::string>() << ", isa "
            << environment["isa"].get<std::string>() << ", convship "
            << environment["versions"]["convship"].get<std::string>() << ", LibTorch "
            << environment["versions"]["torch"].get<std::string>() << '\n';
  for (const json& each : report["results"]) {
    std::cout << std::left << std::setw(16) << each["rung"].get<std::string>() << " batch "
              << each["batch"] << ", threads " << each["threads"];
    if (each.contains("callers")) std::cout << ", callers " << each["callers"];
    std::cout << ": ";
    if (each["problem"] != "") {
      std::cout << "not measured: " << each["problem"].get<std::string>() << '\n';
      continue;
    }
    std::cout << std::fixed << std::setprecision(1) << "p50 " << each["p50_us"].get<double>()
              << " us, p90 " << each["p90_us"].get<double>() << ", p99 "
              << each["p99_us"].get<double>() << ", " << each["images_per_s"].get<double>()
              << " images/s; load " << each["load_us"].get<double>() / 1e3 << " ms, first call "
              << each["first_us"].get<double>() / 1e3 << " ms, peak "
              << each["peak_mib"].get<double>() << " MiB";
    if (each.contains("stages_us")) {
      std::cout << "; bytes to class " << each["stages_us"]["end_to_end"].get<double>() << " us";
    }
    std::cout << '\n';
  }
  for (const json& warning : report["warnings"]) {
    std::cout << "warning: " << warning.get<std::string>() << '\n';
  }
}

int bench(BenchArguments& arguments) {
  if (arguments.worker) return bench_worker(arguments.model, arguments.input, arguments.image);
  int& threads = arguments.model.options.threads;
  if (threads == 0) threads = default_threads();
  json report = {{"schema", 1},
                 {"model", arguments.model.path.filename().string()},
                 {"environment", bench_environment(threads)},
                 {"results", json::array()}};
  report["warnings"] = bench_warnings(report["environment"]);
  std::vector<Rung> rungs = start(arguments);
  measure(rungs, arguments);
  bool right = true;
  for (Rung& rung : rungs) {
    right = right && rung.problem.empty();
    report["results"].push_back(row(rung, arguments));
  }
  if (arguments.model.json) {
    std::cout << report.dump() << '\n';
  } else {
    print_report(report);
  }
  return right ? kOk : kDifference;
}

}  // namespace

Action add_bench(CLI::App& verb) {
  auto arguments = std::make_shared<BenchArguments>();
  arguments->model.add_to(verb);
  verb.add_option("--batch", arguments->input.batch, "Images per call")->check(CLI::Range(1, 4096));
  verb.add_option("--size", arguments->input.size,
                  "Input of one image, 224, 240x320 or 3x240x320, where the file does not say");
  verb.add_option("--input", arguments->input.files, "NAME=FILE.npy instead of numbers of our own")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb.add_option("--image", arguments->image,
                  "Measure from the bytes of this image to its classes as well");
  verb.add_option("--seconds", arguments->seconds, "How long to measure each rung")
      ->check(CLI::Range(0.01, 3600.0));
  verb.add_option("--callers", arguments->callers,
                  "Threads of the program that call the model at once; images/s is of all")
      ->check(CLI::Range(1, 256));
  // For `convship bench` and this verb itself, which ask by lines on stdin.
  verb.add_flag("--worker", arguments->worker)->group("");
  return [arguments, &verb] {
    if (verb.count("--backend") > 0) arguments->backend = arguments->model.backend;
    return bench(*arguments);
  };
}

}  // namespace convship::apps
