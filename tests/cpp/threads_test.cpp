// A real model in many threads, in forked children, and beside the caller's
// floating-point settings. Through the public header alone.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cfenv>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "convship/model.h"
#include "process_state.h"
#include "values.h"
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

using namespace convship;
using namespace convship::testing;

namespace {

const std::string kLeNet = std::string(CONVSHIP_TEST_MODELS) + "/lenet.pt";

// The large numbers of scripts/test --full.
int times(int few, int many) {
  const char* full = std::getenv("CONVSHIP_TEST_FULL");
  return full != nullptr && std::string(full) == "1" ? many : few;
}

Model load(int threads = 1) {
  Options options;
  options.threads = threads;
  return Model::load(kLeNet, options);
}

using Image = std::vector<float>;
using Answer = std::vector<float>;

Image image_of(std::uint32_t seed) {
  Image image(28 * 28);
  fill(image, seed);
  return image;
}

Answer ask(const Model& model, const Image& image) {
  Answer answer(10);
  model.run_into({{"input", {image.data(), DType::float32, {1, 1, 28, 28}, {}}}},
                 {{"logits", {answer.data(), DType::float32, {1, 10}, {}}}});
  return answer;
}

bool same_bits(const Answer& a, const Answer& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Images and what a single thread answers to them.
class Known {
 public:
  explicit Known(const Model& model) {
    for (std::uint32_t i = 0; i < kImages; ++i) {
      images_.push_back(image_of(i));
      answers_.push_back(ask(model, images_.back()));
    }
  }
  bool is_right(const Model& model, std::size_t number) const {
    const std::size_t i = number % kImages;
    return same_bits(ask(model, images_[i]), answers_[i]);
  }

 private:
  static constexpr std::size_t kImages = 16;
  std::vector<Image> images_;
  std::vector<Answer> answers_;
};

// How many of `calls` a thread are wrong, each thread with the model that `of` gives it.
template <typename Of>
int wrong_answers(int threads, int calls, const Known& known, const Of& of) {
  std::atomic<int> wrong{0};
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      const Model& model = of(t);
      for (int i = 0; i < calls; ++i) {
        wrong += !known.is_right(model, static_cast<std::size_t>(t + i));
      }
    });
  }
  for (auto& thread : running) thread.join();
  return wrong;
}

}  // namespace

TEST_CASE("1 to 64 threads on one model and on eight get the bits of a single thread") {
  std::vector<Model> models;
  for (int i = 0; i < 8; ++i) models.push_back(load());
  const Known known(models[0]);
  for (const int threads : {1, 2, 4, 8, 64}) {
    CAPTURE(threads);
    const int calls = times(6400, 320'000) / threads;
    CHECK(wrong_answers(threads, calls, known, [&](int) -> const Model& { return models[0]; }) ==
          0);
    CHECK(wrong_answers(threads, calls, known, [&](int t) -> const Model& {
            return models[static_cast<std::size_t>(t) % models.size()];
          }) == 0);
  }
}

TEST_CASE("threads inside of calls and outside of them give the same bits") {
  const Model model = load();
  const Known known(model);
  set_threads(2);
  CHECK(wrong_answers(8, 500, known, [&](int) -> const Model& { return model; }) == 0);
  set_threads(1);
}

TEST_CASE("storms of loading, running and destroying leave nothing behind") {
  const Model first = load();
  const Known known(first);
  const auto storm = [&] {
    std::atomic<int> wrong{0};
    std::vector<std::thread> running;
    for (int t = 0; t < 8; ++t) {
      running.emplace_back([&, t] {
        for (int i = 0; i < times(10, 250); ++i) {
          const Model model = load();
          wrong += !known.is_right(model, static_cast<std::size_t>(t + i));
        }
      });
    }
    for (auto& thread : running) thread.join();
    return wrong.load();
  };
  CHECK(storm() == 0);  // allocators and LibTorch's caches settle
  const auto threads = settled_thread_count(), files = open_files(), bytes = resident_bytes();
  CHECK(storm() == 0);
  CHECK(settled_thread_count() == threads);
  CHECK(open_files() == files);
  CHECK(resident_bytes() - bytes <= 8 << 20);
}

TEST_CASE("10,000 short-lived threads leave neither threads nor files nor memory behind") {
  const Model model = load(2);  // each of them has threads of OpenMP's, too
  const Known known(model);
  const auto ask_in_threads = [&](int count) {
    int wrong = 0;
    for (int i = 0; i < count; i += 4) {
      wrong += wrong_answers(4, 1, known, [&](int) -> const Model& { return model; });
    }
    return wrong;
  };
  CHECK(ask_in_threads(400) == 0);
  const auto threads = settled_thread_count(), files = open_files(), bytes = resident_bytes();
  CHECK(ask_in_threads(10'000) == 0);
  CHECK(settled_thread_count() == threads);
  CHECK(open_files() == files);
  CHECK(resident_bytes() - bytes <= 8 << 20);
  set_threads(1);
}

TEST_CASE("there is one OpenMP runtime in the process") {
  const Model model = load();
  const auto runtimes = openmp_runtimes();
  CAPTURE(runtimes.size());
  CHECK(runtimes.size() == 1);
}

TEST_CASE("a child that is forked after use answers too") {
  const Model model = load(2);
  const Known known(model);
  // A convolution of the interpreter, too: its threads are OpenMP's.
  const std::vector<std::uint8_t> pixels(300 * 300 * 3, 77);
  const PixelView view{pixels.data(), 300, 300};
  const auto expected = model.predict_pixels(view);
  for (int i = 0; i < times(10, 100); ++i) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      alarm(10);  // a hang becomes a death by SIGALRM
      bool right = known.is_right(model, static_cast<std::size_t>(i));
      right = right && model.predict_pixels(view)[0].probability == expected[0].probability;
      std::thread([&] { right = right && known.is_right(model, 3); }).join();
      right = right && known.is_right(load(), 4);
      _exit(right ? 0 : 1);
    }
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CAPTURE(status);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
  CHECK(known.is_right(model, 5));
  set_threads(1);
}

#if defined(__x86_64__)
TEST_CASE("the caller's rounding and treatment of denormals stay as they were") {
  constexpr unsigned kFlags = 0x3f;  // what happened since; not a setting
  constexpr unsigned kFlush = 0x8040;
  const unsigned before = _mm_getcsr() & ~kFlags;
  const Model model = load(2);
  CHECK((_mm_getcsr() & ~kFlags) == before);
  for (const unsigned flush : {0u, kFlush}) {
    for (const int rounding : {FE_TONEAREST, FE_UPWARD}) {
      REQUIRE(std::fesetround(rounding) == 0);
      _mm_setcsr((_mm_getcsr() & ~kFlush) | flush);
      const unsigned mine = _mm_getcsr() & ~kFlags;
      const Image image = image_of(1);
      const std::vector<std::uint8_t> pixels(12, 9);
      ask(model, image);
      model.predict_pixels({pixels.data(), 2, 2});
      model.warm_up();
      const Model other = load();
      CHECK_THROWS_AS(model.predict_file("/nowhere"), Error);
      CHECK((_mm_getcsr() & ~kFlags) == mine);
      CHECK(std::fegetround() == rounding);
    }
  }
  std::fesetround(FE_TONEAREST);
  _mm_setcsr(before);
}
#endif
