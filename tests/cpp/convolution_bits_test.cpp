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
    for (const int64_t side : {4, 7}) {
      for (const int64_t groups : {1, 2}) {
        convship::set_isa(isa);  // the checker leaves another
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

namespace {

// The case with the padding's zeros as part of its images.
template <typename T>
Problem<T> with_zeros_around(Case c, Tensors<T> t, const Arenas& arenas) {
  const Geometry g = c.g;
  const Pair image{g.image.h + 2 * g.padding.h, g.image.w + 2 * g.padding.w};
  std::vector<T> x(g.n * g.c_in * image.h * image.w, narrowed<T>(0));
  for (int64_t row = 0; row < g.n * g.c_in * g.image.h; ++row) {
    const int64_t plane = row / g.image.h, y = row % g.image.h + g.padding.h;
    std::copy_n(t.x.begin() + row * g.image.w, g.image.w,
                x.begin() + (plane * image.h + y) * image.w + g.padding.w);
  }
  t.x = std::move(x);
  c.g.image = image;
  c.g.padding = {0, 0};
  return Problem<T>(c, arenas, t);
}

// Images of a few pixels, most of whose taps meet padding alone; the second
// have more weights than a cache.
std::vector<Case> small_images() {
  std::vector<Case> cases;
  for (const int64_t c_in : {19, 900}) {
    for (const Pair image : {Pair{1, 1}, Pair{1, 2}, Pair{2, 1}, Pair{2, 3}, Pair{4, 1}}) {
      for (const Pair kernel : {Pair{3, 3}, Pair{5, 2}}) {
        for (const int64_t stride : {1, 2}) {
          for (const int64_t dilation : {1, 2}) {
            Case c;
            c.name = "small image";
            c.number = cases.size();
            c.g = simple(c_in, image, 20, kernel);
            c.g.padding = {kernel.h / 2 * dilation, 1 + dilation};
            c.g.stride = {stride, 1};
            c.g.dilation = {dilation, dilation};
            c.out = static_cast<Layout>(c.number % kOutputLayouts);
            if (complete(c.g, false)) cases.push_back(c);
          }
        }
      }
    }
  }
  return cases;
}

}  // namespace

// Loops need not sum the taps that meet padding alone: no bit may tell.
TEST_CASE_TEMPLATE("padding is zeros around the image", T, CONVSHIP_TYPES) {
  const Arenas arenas;
  Failures failures;
  int64_t compared = 0;
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    std::vector<Case> cases = small_images();
    for (uint64_t number = 0; number < 1'000; ++number) {
      cases.push_back(draw_case(number, (sizeof(T) << 56) + 3));
    }
    for (Case& c : cases) {
      if (failures.enough()) break;
      if (c.g.padding.h == 0 && c.g.padding.w == 0) continue;
      c.integers = false;
      if (c.in == Layout::expanded) c.in = Layout::nchw;
      if (c.number % 2) {  // sums that underflow, to zeros of both signs
        c.exponent = sizeof(T) == sizeof(double) ? -1074 : std::is_same_v<T, float> ? -149 : -133;
        c.bias = c.relu = false;
      }
      const Problem<T> padded(c, arenas);
      const auto convolution = padded.convolution(Accuracy::direct);
      // Sums of each tap's sums, where some meet little but padding.
      if (convolution->family(c.g) == Family::per_tap) continue;
      const Written<T> a = padded.run(*convolution);
      // In the same memory.
      const Problem<T> zeros = with_zeros_around<T>(c, padded.tensors(), arenas);
      const Written<T> b = zeros.run(*zeros.convolution(Accuracy::direct));
      ++compared;
      if (!equal_bits(a.y, b.y) || a.index != b.index) {
        failures.note(isa + ": other bits than with zeros around; " + describe(c));
      }
    }
  }
  CHECK(compared > 300);
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
