// One process that asks a model again and again and compares every answer, bit by
// bit, with the first: soak MODEL [--calls N] [--threads N]. Ends with 1 when an
// answer differs, or memory, threads or open files grow.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "convship/model.h"
#include "process_state.h"
#include "values.h"

using namespace convship;
using namespace convship::testing;

namespace {

constexpr std::int64_t kMostGrowth = 1 << 20;  // bytes, after the first hundredth
constexpr std::size_t kInputs = 64;

// Durations in buckets of which each is an eighth wider than the one below.
class Histogram {
 public:
  void add(std::uint64_t nanoseconds) { ++counts_[bucket(nanoseconds)]; }
  void add(const Histogram& other) {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  }
  // The duration that `share` of all stay below, in microseconds.
  double quantile(double share) const {
    std::uint64_t all = 0, seen = 0;
    for (const std::uint64_t count : counts_) all += count;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (static_cast<double>(seen) >= share * static_cast<double>(all)) {
        const std::size_t power = i / 8;
        return static_cast<double>(std::uint64_t{9 + i % 8} << power) / 8 / 1e3;
      }
    }
    return 0;
  }

 private:
  static std::size_t bucket(std::uint64_t nanoseconds) {
    const auto value = std::max<std::uint64_t>(nanoseconds, 1);
    const auto power = static_cast<std::size_t>(std::bit_width(value) - 1);
    return power * 8 + ((value << 3 >> power) & 7);
  }
  std::array<std::uint64_t, 64 * 8> counts_{};
};

struct Question {
  std::vector<float> values;
  std::vector<float> answer;
};

class Asker {
 public:
  explicit Asker(const Model& model) : model_(model) {
    const TensorInfo& in = model.inputs().at(0);
    const TensorInfo& out = model.outputs().at(0);
    input_ = in.name, output_ = out.name;
    in_shape_ = one(*in.shape), out_shape_ = one(*out.shape);
    std::uint32_t seed = 1;
    for (std::size_t i = 0; i < kInputs; ++i) {
      Question question{std::vector<float>(count(in_shape_)), {}};
      fill(question.values, seed);
      question.answer.resize(count(out_shape_));
      ask(question, question.answer.data());
      questions_.push_back(std::move(question));
    }
  }

  // Asks `calls` times, as a thread of its own; returns how many answers are wrong.
  std::int64_t run(std::int64_t calls, std::size_t first, Histogram& times) const {
    std::int64_t wrong = 0;
    std::vector<float> answer(count(out_shape_));
    for (std::int64_t i = 0; i < calls; ++i) {
      const Question& question = questions_[(first + static_cast<std::size_t>(i)) % kInputs];
      const auto begin = std::chrono::steady_clock::now();
      ask(question, answer.data());
      const std::chrono::nanoseconds time = std::chrono::steady_clock::now() - begin;
      times.add(static_cast<std::uint64_t>(time.count()));
      wrong +=
          std::memcmp(answer.data(), question.answer.data(), answer.size() * sizeof(float)) != 0;
    }
    return wrong;
  }

 private:
  using Shape = std::vector<std::int64_t>;
  static Shape one(Shape shape) {
    std::replace(shape.begin(), shape.end(), TensorInfo::kAnySize, std::int64_t{1});
    return shape;
  }
  static std::size_t count(const Shape& shape) {
    std::int64_t count = 1;
    for (const std::int64_t size : shape) count *= size;
    return static_cast<std::size_t>(count);
  }
  void ask(const Question& question, float* answer) const {
    model_.run_into({{input_, {question.values.data(), DType::float32, in_shape_, {}}}},
                    {{output_, {answer, DType::float32, out_shape_, {}}}});
  }

  const Model& model_;
  std::string input_, output_;
  Shape in_shape_, out_shape_;
  std::vector<Question> questions_;
};

// `calls` by `threads` together.
std::int64_t ask_in_threads(const Asker& asker,
                            std::int64_t calls,
                            std::int64_t threads,
                            Histogram& times) {
  std::atomic<std::int64_t> wrong{0};
  std::vector<Histogram> each(static_cast<std::size_t>(threads));
  std::vector<std::thread> running;
  for (std::int64_t t = 0; t < threads; ++t) {
    const auto number = static_cast<std::size_t>(t);
    const std::int64_t share = calls / threads + (t < calls % threads ? 1 : 0);
    running.emplace_back(
        [&, share, number] { wrong += asker.run(share, number * 7, each[number]); });
  }
  for (auto& thread : running) thread.join();
  for (const Histogram& one : each) times.add(one);
  return wrong;
}

int soak(const char* path, std::int64_t calls, std::int64_t threads) {
  Options options;
  options.threads = 1;
  const Model model = Model::load(path, options);
  const Asker asker(model);
  const std::int64_t warm_up = std::max<std::int64_t>(calls / 100, 1000);
  Histogram first, last;
  std::int64_t wrong = ask_in_threads(asker, warm_up, threads, first);
  const auto bytes = resident_bytes(), files = open_files(), tasks = settled_thread_count();
  const auto begin = std::chrono::steady_clock::now();
  wrong += ask_in_threads(asker, calls, threads, last);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  const auto growth = resident_bytes() - bytes, more_files = open_files() - files;
  const auto more_tasks = settled_thread_count() - tasks;
  const bool passed = wrong == 0 && growth <= kMostGrowth && more_files == 0 && more_tasks == 0;
  std::printf(
      "soak: %lld calls in %.1f s, %lld threads: %lld wrong, RSS %+.2f MiB, files %+lld, threads "
      "%+lld, p50 %.1f us, p99.9 %.1f us (first hundredth %.1f us): %s\n",
      static_cast<long long>(calls), seconds.count(), static_cast<long long>(threads),
      static_cast<long long>(wrong), static_cast<double>(growth) / (1 << 20),
      static_cast<long long>(more_files), static_cast<long long>(more_tasks), last.quantile(0.5),
      last.quantile(0.999), first.quantile(0.999), passed ? "passed" : "FAILED");
  return passed ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::int64_t calls = 200'000, threads = 1;
  for (int i = 2; i + 1 < argc; i += 2) {
    (std::strcmp(argv[i], "--calls") == 0 ? calls : threads) = std::atoll(argv[i + 1]);
  }
  if (argc < 2 || argc % 2 != 0 || calls < 1 || threads < 1) {
    std::fputs("usage: soak MODEL [--calls N] [--threads N]\n", stderr);
    return 2;
  }
  try {
    return soak(argv[1], calls, threads);
  } catch (const Error& error) {
    std::fprintf(stderr, "soak: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
