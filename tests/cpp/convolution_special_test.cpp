// NaN, infinities, signs of zero, subnormal and largest numbers, in every place
// of small images, and the floating-point environment around calls.
#include <array>
#include <cfenv>
#include <initializer_list>

#include "convolution_test.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using namespace convolution_test;

template <typename T>
std::array<double, 6> special_values() {
  const double subnormal = sizeof(T) == 8 ? 0x1p-1074 : sizeof(T) == 4 ? 0x1p-149 : 0x1p-133;
  return {std::numeric_limits<double>::quiet_NaN(),
          std::numeric_limits<double>::infinity(),
          -std::numeric_limits<double>::infinity(),
          -0.0,
          subnormal,
          Numbers<T>::kMost};
}

// Widths on both sides of the vectors' lanes and of their multiples.
constexpr std::array<int64_t, 14> kWidths{1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 33};

// A kernel of 3x3 over `width` columns; what surrounds it changes with `kind`.
Case special_case(int64_t width, int kind) {
  Case c;
  c.name = "special";
  c.number = static_cast<uint64_t>(width * 8 + kind);
  Geometry& g = c.g;
  g = simple(2, {4, width}, kind % 2 == 0 ? 3 : 9, {3, 3});
  g.padding = kind == 0 ? Pair{0, 1} : Pair{1, 1};
  if (kind >= 1) g.pool_size = kind == 1 ? Pair{2, 2} : Pair{3, 2};
  if (kind == 1 && width > 1) g.pool_stride = {2, 2};
  if (kind == 2) g.pool_padding = {1, 1};
  if (kind == 3) g.pool_size = g.pool_stride = {1, 1};
  if (width == 1 && kind == 1) g.pool_size.w = 1;
  c.relu = kind != 3 && width % 2 == 0;
  c.residual = kind == 3;
  if (kind == 2) c.index = width % 3 == 0 ? Index::narrow : Index::none;
  c.magnitude = 2;
  c.in = static_cast<Layout>(width % 3);
  c.out = static_cast<Layout>((width + kind) % kOutputLayouts);
  return c;
}

// Runs the case with each value at each place of one of its tensors.
template <typename T>
void everywhere(
    Case c, Special::Place place, int64_t count, Checker<T>& checker, Failures& failures) {
  for (int64_t at = 0; at < count; ++at) {
    for (const double value : special_values<T>()) {
      if (failures.enough()) return;
      c.special = {place, at, value};
      failures.note(checker.check(c));
    }
  }
}

// The same at `places` of them, spread out.
template <typename T>
void some_places(Case c,
                 Special::Place place,
                 int64_t count,
                 int64_t places,
                 Checker<T>& checker,
                 Failures& failures) {
  for (int64_t i = 0; i < places; ++i) {
    for (const double value : special_values<T>()) {
      if (failures.enough()) return;
      c.special = {place, i * (count - 1) / (places - 1), value};
      failures.note(checker.check(c));
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("special values of the input", T, CONVSHIP_TYPES) {
  Checker<T> checker;
  Failures failures;
  for (const int64_t width : kWidths) {
    for (int kind = 0; kind < 3; ++kind) {
      Case c = special_case(width, kind);
      if (!complete(c.g, false)) continue;
      everywhere(c, Special::Place::input, c.g.c_in * c.g.image.h * c.g.image.w, checker, failures);
    }
  }
  CHECK(checker.tally().cases > 10'000);
}

// Whole vectors of channels that adjoin go from the sums' registers to their place.
TEST_CASE_TEMPLATE("special values of layers that only convolve", T, CONVSHIP_TYPES) {
  Checker<T> checker;
  Failures failures;
  for (const int64_t width : {1, 6, 13}) {
    for (const Layout out : {Layout::nhwc, Layout::blocked}) {
      Case c = special_case(width, 3);
      c.g.c_out = 16;
      c.relu = true;
      c.residual = width == 6;
      c.out = out;
      REQUIRE(complete(c.g, false));
      everywhere(c, Special::Place::input, c.g.c_in * c.g.image.h * c.g.image.w, checker, failures);
      everywhere(c, Special::Place::bias, c.g.c_out, checker, failures);
    }
  }
}

TEST_CASE_TEMPLATE("special values of weights, bias and residual", T, CONVSHIP_TYPES) {
  Checker<T> checker;
  Failures failures;
  for (const int64_t width : {1, 3, 8, 17}) {
    for (int kind = 0; kind < 4; ++kind) {
      Case c = special_case(width, kind);
      const Geometry& g = c.g;
      if (!complete(c.g, false)) continue;
      everywhere(c, Special::Place::weight, g.c_out * g.c_in * 9, checker, failures);
      everywhere(c, Special::Place::bias, g.c_out, checker, failures);
      if (!c.residual) continue;
      const int64_t outputs = g.c_out * g.pooled.h * g.pooled.w;
      everywhere(c, Special::Place::residual, outputs, checker, failures);
    }
  }
  CHECK(checker.tally().cases > 5'000);
}

// Zeros show their signs where nothing else hides them.
TEST_CASE_TEMPLATE("special values among zeros", T, CONVSHIP_TYPES) {
  Checker<T> checker;
  Failures failures;
  for (const int64_t width : {1, 5, 9}) {
    for (int kind = 0; kind < 4; ++kind) {
      Case c = special_case(width, kind);
      const Geometry& g = c.g;
      if (!complete(c.g, false)) continue;
      c.magnitude = 0;
      everywhere(c, Special::Place::input, g.c_in * g.image.h * g.image.w, checker, failures);
      everywhere(c, Special::Place::weight, g.c_out * g.c_in * 9, checker, failures);
      everywhere(c, Special::Place::bias, g.c_out, checker, failures);
      if (!c.residual) continue;
      const int64_t outputs = g.c_out * g.pooled.h * g.pooled.w;
      everywhere(c, Special::Place::residual, outputs, checker, failures);
    }
  }
}

// Transforms would spread what is not a number over a whole tile.
TEST_CASE_TEMPLATE("special values where sums may be transformed", T, CONVSHIP_TYPES) {
  Checker<T> checker;
  Failures failures;
  struct Size {
    int64_t c_in, kernel;
    Pair image;
    int64_t c_out = 17, n = 1;
    int fewer = 1;
  };
  // The last has more weights than a cache: its images share them.
  for (const Size size : {Size{16, 3, {6, 7}}, Size{64, 3, {17, 17}}, Size{64, 5, {8, 7}},
                          Size{192, 3, {3, 4}, 192, 2, 8}}) {
    for (const int64_t magnitude : {0, 2}) {
      if (magnitude && size.fewer > 1) continue;
      Case c;
      c.name = "special, transformed";
      c.g = simple(size.c_in, size.image, size.c_out, {size.kernel, size.kernel});
      c.g.n = size.n;
      c.g.padding = {1, 1};
      REQUIRE(complete(c.g, false));
      c.magnitude = magnitude;
      c.relu = false;
      const Geometry& g = c.g;
      const int64_t inputs = g.n * g.c_in * g.image.h * g.image.w;
      const int64_t weights = g.c_out * g.c_in * g.kernel.h * g.kernel.w;
      some_places(c, Special::Place::input, inputs, std::max(2, 16 / size.fewer), checker,
                  failures);
      some_places(c, Special::Place::weight, weights, std::max(2, 4 / size.fewer), checker,
                  failures);
      some_places(c, Special::Place::bias, g.c_out, std::max(2, 3 / size.fewer), checker, failures);
    }
  }
}

// A window may hold nothing but -inf, or nothing but NaN and -inf.
TEST_CASE_TEMPLATE("windows of nothing but special values", T, CONVSHIP_TYPES) {
  Checker<T> checker;
  Failures failures;
  for (const int64_t width : kWidths) {
    for (const double value : special_values<T>()) {
      for (const bool relu : {false, true}) {
        for (const Index index : {Index::none, Index::narrow, Index::wide}) {
          Case c = special_case(width, 0);
          c.g = simple(1, {6, width}, 9, {1, 1});
          c.g.pool_size = {3, std::min<int64_t>(width, 2)};
          c.g.pool_padding = {1, c.g.pool_size.w / 2};
          REQUIRE(complete(c.g, false));
          c.relu = relu;
          c.index = index;
          c.in = Layout::expanded;  // the last value stands for the whole image
          c.expanded = kWhole;
          c.special = {Special::Place::input, 6 * width - 1, value};
          for (const bool bias : {false, true}) {
            for (const bool integers : {false, true}) {
              c.bias = bias;
              c.integers = integers;
              if (!failures.enough()) failures.note(checker.check(c));
            }
          }
        }
      }
    }
  }
}

namespace {

// The control bits: rounding, what becomes of subnormals, which exceptions trap.
uint64_t environment() {
#if defined(__x86_64__)
  return _mm_getcsr() & ~0x3fu;
#elif defined(__aarch64__)
  uint64_t bits;
  __asm__ volatile("mrs %0, fpcr" : "=r"(bits));
  return bits;
#else
  return static_cast<uint64_t>(std::fegetround());
#endif
}

}  // namespace

TEST_CASE_TEMPLATE("calls leave the floating-point environment as it is", T, CONVSHIP_TYPES) {
  const Arenas arenas;
  const int before = std::fegetround();
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    for (const int rounding : {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
      for (uint64_t number = 0; number < 25; ++number) {
        const Problem<T> problem(draw_case(number, 1), arenas);
        std::fesetround(rounding);
#if defined(__x86_64__)
        // Subnormals are zeros, in every other call.
        _mm_setcsr((_mm_getcsr() & ~0x8040u) | (number % 2 ? 0x8040u : 0u));
#endif
        const uint64_t set = environment();
        problem.run(*problem.convolution(Accuracy::direct));
        problem.run(*problem.convolution(Accuracy::fast));
        const uint64_t left = environment();
        std::fesetround(before);
#if defined(__x86_64__)
        _mm_setcsr(_mm_getcsr() & ~0x8040u);
#endif
        CHECK(left == set);
      }
    }
  }
}
