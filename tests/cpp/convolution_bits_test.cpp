// An image's bits depend on nothing but its values, the geometry, the accuracy
// and the instruction set.
#include <initializer_list>
#include <thread>

#include "convolution_test.h"

namespace {

using namespace convolution_test;

template <typename T>
bool equal_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <typename T>
std::vector<T> part(const std::vector<T>& whole, int64_t number, int64_t parts) {
  const int64_t size = static_cast<int64_t>(whole.size()) / parts;
  return {whole.begin() + number * size, whole.begin() + (number + 1) * size};
}

// Image `number` of a case, as a case of its own.
template <typename T>
Problem<T> alone(Case c, const Tensors<T>& t, int64_t number, const Arenas& arenas) {
  const int64_t n = c.g.n;
  c.g.n = 1;
  return Problem<T>(c, arenas, {part(t.x, number, n), t.w, t.b, part(t.r, number, n)});
}

// What of the answers differs from the case's own, or null. The object is new
// for each call, or the one before, to cover packing and reuse.
template <typename T>
const char* difference(const Case& c, Accuracy accuracy, const Arenas& arenas) {
  const Problem<T> plain(c, arenas);
  const auto convolution = plain.convolution(accuracy);
  const Written<T> first = plain.run(*convolution);
  if (!equal_bits(first.y, plain.run(*convolution).y)) return "a second call";
  const Tensors<T> t = plain.tensors();
  for (int64_t n = 0; n < c.g.n; ++n) {
    const Problem<T> image = alone(c, t, n, arenas);
    const Written<T> written = image.run(*image.convolution(accuracy));
    if (!equal_bits(written.y, part(first.y, n, c.g.n))) return "an image alone";
    if (!equal_bits(written.index, part(first.index, n, c.g.n))) return "an image's index alone";
  }
  const auto differs = [&](const Case& other) {
    const Problem<T> problem(other, arenas, t);
    const Written<T> written = problem.run(*problem.convolution(accuracy));
    return !equal_bits(written.y, first.y) || written.index != first.index;
  };
  Case other = c;
  for (const int width : {2, 7}) {
    other.width = width;
    if (differs(other)) return "two threads";
  }
  other = c;
  other.flush_end = !c.flush_end;
  if (differs(other)) return "another alignment";
  // Half of the layouts each time.
  for (int layout = c.number % 4 / 2; layout < kOutputLayouts; layout += 2) {
    other = c;
    other.in = static_cast<Layout>(layout);
    if (differs(other)) return "another layout of the input";
    other = c;
    other.out = static_cast<Layout>(layout);
    if (differs(other)) return "another layout of the output";
  }
  return nullptr;
}

}  // namespace

TEST_CASE_TEMPLATE("bits are those of the image", T, CONVSHIP_TYPES) {
  const Arenas arenas;
  Failures failures;
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    for (uint64_t number = 0; number < 2'000 && !failures.enough(); ++number) {
      Case c = draw_case(number, (sizeof(T) << 56) + 1);
      c.integers = false;
      c.width = 1;
      if (c.in == Layout::expanded) c.in = Layout::nchw;
      const Accuracy accuracy = number % 2 ? Accuracy::direct : Accuracy::fast;
      if (const char* what = difference<T>(c, accuracy, arenas)) {
        failures.note(isa + ": " + what + " has other bits; " + describe(c));
      }
    }
  }
}

// Small images of a batch share one reading of weights that no cache keeps.
TEST_CASE("bits are those of the image where weights are many") {
  const Arenas arenas;
  Checker<float> checker;
  for (const std::string& isa : convship::available_isas()) {
    if (isa == "baseline") continue;  // transforms nothing
    convship::set_isa(isa);
    for (const int64_t side : {4, 7}) {
      for (const int64_t groups : {1, 2}) {
        Case c;
        c.name = "many weights";
        c.number = static_cast<uint64_t>(side);
        c.g = simple(192 * groups, {side, side + 1}, 192 * groups, {3, 3});
        c.g.n = 5;
        c.g.groups = groups;
        c.g.padding = {1, 1};
        REQUIRE(complete(c.g, false));
        const char* what = difference<float>(c, Accuracy::fast, arenas);
        CHECK_MESSAGE(!what, isa, ": ", what, " has other bits; ", describe(c));
        if (side == 4) CHECK(checker.check(c) == "");
      }
    }
  }
}

// Weights are packed by the call that needs them first.
TEST_CASE_TEMPLATE("threads share one object from its first call on", T, CONVSHIP_TYPES) {
  const Arenas mine, other;
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    for (uint64_t number = 0; number < 200; ++number) {
      Case c = draw_case(number, 2);
      c.g.n = 1;
      c.width = 1;
      const Problem<T> a(c, mine), b(c, other);
      const auto convolution = a.convolution(Accuracy::fast);
      Written<T> from_a, from_b;
      std::thread thread([&] { from_b = b.run(*convolution); });
      from_a = a.run(*convolution);
      thread.join();
      CHECK(equal_bits(from_a.y, from_b.y));
    }
  }
}
