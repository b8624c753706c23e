// Convolution<T> against the formula: every instruction set, random shapes and
// every width. CONVSHIP_CASES sets how many random shapes, CONVSHIP_CASE
// repeats one of them.
#include "convolution_test.h"

#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <initializer_list>

namespace {

using namespace convolution_test;

int64_t number_in(const char* variable, int64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::strtoll(text, nullptr, 10) : otherwise;
}

// doctest reports a crash and raises the signal again, for whoever was there
// before it.
void tell_case(int signal) {
  under_test += '\n';
  if (write(STDERR_FILENO, under_test.data(), under_test.size()) < 0) std::abort();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

const bool kTells = [] {
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) std::signal(signal, tell_case);
  return true;
}();

}  // namespace

TEST_CASE_TEMPLATE("random shapes", T, CONVSHIP_TYPES) {
  Checker<T> checker;
  Failures failures;
  // Other shapes for each type.
  const uint64_t salt = sizeof(T) << 56;
  const int64_t one = number_in("CONVSHIP_CASE", -1);
  const int64_t count = one >= 0 ? one + 1 : number_in("CONVSHIP_CASES", 20'000);
  for (int64_t number = std::max<int64_t>(0, one); number < count && !failures.enough(); ++number) {
    failures.note(checker.check(draw_case(static_cast<uint64_t>(number), salt)));
  }
  const Tally& tally = checker.tally();
  MESSAGE(tally.cases, " cases, ", tally.trusted, " of them mostly not zero, ", tally.comparisons,
          " values compared, drifted ", tally.drifted, " of ", tally.reals);
  for (std::size_t i = 0; i < kFamilies; ++i) {
    MESSAGE(std::string(family_name(static_cast<Family>(i))), ": ", tally.calls[i], " calls");
    if (tally.worst[i] > 0) MESSAGE("worst error, of what may be: ", tally.worst[i]);
  }
  if (one >= 0) return;
  CHECK(10 * tally.trusted >= 9 * tally.cases);
  CHECK(1000 * tally.drifted <= tally.reals);
  if (count < 20'000 || convship::available_isas().size() < 2) return;
  for (std::size_t i = 0; i < kFamilies; ++i) {
    const auto family = static_cast<Family>(i);
    // convolution_rounded_test.cpp counts those of rounded numbers.
    if (family == Family::words_bfloat16 || family == Family::words_int8 ||
        family == Family::tiles_int8) {
      continue;
    }
    if (family == Family::tiles_bfloat16) {
      const bool has_tiles = convship::available_isas().front() == "amx";
      if (has_tiles && sizeof(T) == sizeof(BFloat16)) CHECK(tally.calls[i] >= 1'000);
      continue;
    }
    const bool transforms = family == Family::winograd_2x2_3x3 ||
                            family == Family::winograd_4x4_3x3 ||
                            family == Family::winograd_2x2_5x5;
    // Transforms never in double precision, groups in single alone; bfloat16 holds no sums.
    const bool of_sums = family == Family::per_tap || family == Family::depthwise;
    const bool served = family == Family::groups ? std::is_same_v<T, float>
                        : of_sums                ? sizeof(T) >= sizeof(float)
                                                 : !transforms || sizeof(T) < sizeof(double);
    if (served) CHECK(tally.calls[i] >= 30);
  }
}

namespace {

Case width_case(int64_t width, int64_t kernel, int64_t window, int64_t c_out) {
  Case c;
  c.name = "width";
  c.number = static_cast<uint64_t>(((width * 8 + kernel) * 4 + window) * 32 + c_out);
  Random random(c.number);
  Geometry& g = c.g;
  g = simple(3, {}, c_out, {kernel, kernel});
  g.pool_size = {window, window};
  if (random.one_in(2)) g.pool_stride = g.pool_size;
  if (random.one_in(2)) g.padding = {kernel / 2, kernel / 2};
  const int64_t conv = (width - 1) * g.pool_stride.w + window;
  g.image = {std::max<int64_t>(1, window + kernel - 2 * g.padding.h),
             std::max<int64_t>(1, conv + kernel - 1 - 2 * g.padding.w)};
  c.integers = random.one_in(2);
  c.in = static_cast<Layout>(random.draw(0, kInputLayouts - 2));
  c.out = static_cast<Layout>(random.draw(0, kOutputLayouts - 1));
  c.flush_end = random.one_in(2);
  return c;
}

}  // namespace

TEST_CASE_TEMPLATE("every output width", T, CONVSHIP_TYPES) {
  Checker<T> checker;
  Failures failures;
  // Four vectors of the widest registers, and what is left over.
  constexpr int64_t kMostWidth = 4 * 16 + 3;
  for (int64_t width = 1; width <= kMostWidth; ++width) {
    for (int64_t kernel = 1; kernel <= 5; ++kernel) {
      for (int64_t window = 1; window <= 3; ++window) {
        for (const int64_t c_out : {5, 17}) {
          Case c = width_case(width, kernel, window, c_out);
          REQUIRE(complete(c.g, false));
          if (!failures.enough()) failures.note(checker.check(c));
        }
      }
    }
  }
  CHECK(10 * checker.tally().trusted >= 9 * checker.tally().cases);
}

namespace {

// Sizes that random shapes hardly ever have.
std::vector<Case> hostile_cases() {
  std::vector<Case> cases;
  const auto add = [&](const char* name, Geometry g, bool ceil_mode = false, int width = 1) {
    if (!complete(g, ceil_mode)) throw std::invalid_argument(name);
    for (int variant = 0; variant < 12; ++variant) {
      Case c;
      c.name = name;
      c.number = static_cast<uint64_t>(variant);
      c.g = g;
      c.integers = variant % 2 == 0;
      c.bias = variant % 3 != 0;
      c.relu = variant % 4 < 2;
      c.in = static_cast<Layout>(variant % kInputLayouts);
      c.out = static_cast<Layout>((variant + 2) % kOutputLayouts);
      c.flush_end = variant % 5 < 3;
      c.width = width;
      if (variant >= 6) {
        c.index = g.pool_size.h * g.pool_size.w <= 256 ? Index::narrow : Index::wide;
        c.magnitude = variant < 9 ? 2 : 32;
      }
      cases.push_back(c);
    }
  };
  const auto pooled = [](Geometry g, Pair size, Pair stride, Pair padding) {
    g.pool_size = size;
    g.pool_stride = stride;
    g.pool_padding = padding;
    return g;
  };
  const auto strided = [](Geometry g, Pair stride, Pair padding, Pair dilation) {
    g.stride = stride;
    g.padding = padding;
    g.dilation = dilation;
    return g;
  };
  add("window 17x19", pooled(simple(2, {24, 25}, 5, {3, 2}), {17, 19}, {2, 3}, {8, 9}));
  add("window 16x16", pooled(simple(2, {24, 25}, 5, {1, 1}), {16, 16}, {1, 1}, {0, 0}));
  add("window of everything", pooled(simple(3, {9, 11}, 9, {2, 2}), {8, 10}, {8, 10}, {0, 0}));
  add("window beyond everything", pooled(simple(3, {4, 3}, 9, {2, 2}), {9, 8}, {1, 1}, {4, 4}));
  add("window beyond, ceil", pooled(simple(3, {2, 2}, 9, {2, 2}), {3, 4}, {4, 5}, {0, 0}), true);
  add("window 64", pooled(simple(1, {2, 3}, 3, {1, 1}), {64, 64}, {1, 1}, {32, 32}));
  add("window 65", pooled(simple(1, {2, 3}, 3, {1, 1}), {65, 65}, {1, 1}, {32, 32}));
  add("windows far apart", pooled(simple(2, {40, 40}, 5, {2, 2}), {2, 3}, {15, 17}, {1, 1}), true);
  add("width 1", strided(simple(2, {30, 1}, 4, {3, 3}), {1, 1}, {1, 1}, {1, 1}));
  add("one pixel", simple(1, {1, 1}, 1, {1, 1}));
  add("one pixel in padding", strided(simple(1, {1, 1}, 2, {2, 2}), {1, 1}, {2, 2}, {1, 1}));
  add("kernel of the image", simple(5, {13, 14}, 10, {13, 14}));
  add("stride beyond the image", strided(simple(3, {7, 8}, 6, {2, 2}), {9, 10}, {0, 0}, {1, 1}));
  add("stride into padding", strided(simple(3, {3, 3}, 6, {1, 1}), {4, 4}, {3, 3}, {1, 1}));
  add("taps far apart", strided(simple(3, {30, 30}, 6, {3, 2}), {1, 2}, {0, 3}, {14, 25}));
  add("one channel in", pooled(simple(1, {28, 28}, 20, {5, 5}), {2, 2}, {2, 2}, {0, 0}));
  add("one channel out", simple(67, {12, 12}, 1, {3, 3}));
  // Bands of rows, parts of channels, and chunks of taps end within these.
  add("many channels", strided(simple(130, {6, 7}, 70, {3, 3}), {1, 1}, {1, 1}, {1, 1}), false, 2);
  add("64 channels", strided(simple(64, {9, 40}, 33, {3, 3}), {1, 1}, {1, 1}, {1, 1}), false, 7);
  add("bands",
      pooled(strided(simple(64, {40, 70}, 3, {2, 2}), {1, 1}, {1, 0}, {1, 1}), {3, 3}, {2, 2},
             {1, 1}),
      false, 7);
  // Every so many columns of an image, vectors of them and what is left over.
  for (const int64_t step : {2, 3, 4, 5}) {
    for (const int64_t padding : {0, 1, 4}) {
      const Geometry one = strided(simple(19, {9, 90}, 9, {1, 1}), {2, step}, {0, padding}, {3, 3});
      add("sampled by one tap", one);
      Geometry several =
          strided(simple(17, {20, 97}, 2, {2, 3}), {3, step}, {3, padding}, {3, step});
      add("sampled by several taps", several);
    }
  }
  // Strips of several bands, whose windows share conv rows.
  const auto overlapping = [&](const char* name, Geometry g, int width = 1) {
    add(name, pooled(strided(g, {1, 1}, {1, 1}, {1, 1}), {3, 3}, {1, 2}, {1, 1}), false, width);
  };
  overlapping("overlapping bands", simple(32, {50, 40}, 17, {3, 3}));
  overlapping("overlapping bands of three channels", simple(32, {50, 40}, 3, {3, 3}));
  overlapping("overlapping bands in steps", simple(256, {16, 20}, 17, {3, 3}));
  overlapping("overlapping bands of threads", simple(32, {50, 40}, 17, {3, 3}), 2);
  Geometry lanewise = simple(20, {150, 90}, 20, {3, 3});
  lanewise.groups = 20;
  overlapping("overlapping bands, depthwise", lanewise);
  Geometry depthwise = strided(simple(67, {20, 21}, 134, {3, 3}), {2, 1}, {1, 1}, {1, 1});
  depthwise.groups = 67;
  add("depthwise", depthwise, false, 2);
  Geometry batch = simple(3, {5, 5}, 3, {2, 2});
  batch.n = 300;
  add("large batch", batch, false, 7);
  return cases;
}

}  // namespace

TEST_CASE_TEMPLATE("hostile sizes", T, CONVSHIP_TYPES) {
  Checker<T> checker;
  Failures failures;
  for (const Case& c : hostile_cases()) {
    if (!failures.enough()) failures.note(checker.check(c));
  }
}

// What is noted of rows near an edge must not grow with the padding.
TEST_CASE("padding of billions of rows") {
  constexpr int64_t kPadding = 1'000'000'000;
  Geometry g = simple(8, {1, 1}, 24, {1, 1});
  g.padding.h = kPadding;
  g.pool_stride = {kPadding, 1};
  REQUIRE(complete(g, false));
  REQUIRE(g.pooled.h == 3);
  const std::vector<float> weight(24 * 8, 1), bias(24, 0.5), x(8, 2);
  const Serial serial;
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    const Convolution<float> convolution(weight.data(), bias.data(), {24, 8, {1, 1}, 1},
                                         Accuracy::direct);
    std::vector<float> y(24 * 3);
    convolution.run(g, Activation::none, nchw(x.data(), 8, g.image), nchw(y.data(), 24, g.pooled),
                    {}, {}, serial);
    for (std::size_t i = 0; i < y.size(); ++i) CHECK(y[i] == (i % 3 == 1 ? 16.5f : 0.5f));
  }
}

// Without padding no zeros are copied, whose absence would pay for passes over the results.
TEST_CASE("sums per tap serve padded layers alone") {
  const auto family = [](Pair kernel, int64_t dilation, int64_t padding) {
    Geometry g = simple(512, {33, 33}, 16, kernel);
    g.dilation = {dilation, dilation};
    g.padding = {padding, padding};
    REQUIRE(complete(g, false));
    const std::vector<float> weight(16 * 512 * kernel.h * kernel.w, 1);
    return Convolution<float>(weight.data(), nullptr, {16, 512, kernel, 1}, Accuracy::direct)
        .family(g, true, true);
  };
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    CHECK(family({1, 1}, 2, 0) != Family::per_tap);
    CHECK(family({3, 3}, 16, 0) != Family::per_tap);
    CHECK((family({3, 3}, 24, 24) == Family::per_tap) == (isa != "baseline"));
  }
}

TEST_CASE("every output width of a layer of small groups") {
  Checker<float> checker;
  Failures failures;
  // Two tiles of eight results, and every rest.
  for (int64_t number = 0, width = 1; width <= 19; ++width) {
    for (const int64_t kernel : {1, 3, 5, 7}) {
      for (const int64_t channels : {5, 24, 33}) {
        for (const int64_t stride : {1, 2}) {
          const int64_t dilation = number % 3 == 0 ? 2 : 1,
                        padding = number % 4 == 0 ? 0 : kernel / 2;
          const int64_t covered = (width - 1) * stride + (kernel - 1) * dilation + 1;
          const Pair image{std::max<int64_t>(kernel * dilation, 9), covered - 2 * padding};
          Case c;
          c.number = static_cast<uint64_t>(number++);
          const int64_t group = int64_t{1} << number % 4;  // channels
          c.g = simple(channels * group, image, channels * group, {kernel, kernel});
          c.g.stride = {stride, stride};
          c.g.padding = {padding, padding};
          c.g.dilation = {dilation, dilation};
          c.g.groups = channels;
          if (image.w < 1 || !complete(c.g, false)) continue;
          c.in = number % 2 == 0 ? Layout::blocked : Layout::nhwc;
          c.out = number % 5 < 2 ? Layout::blocked : Layout::nhwc;
          c.integers = number % 2 == 0;
          c.flush_end = number % 3 == 0;
          if (!failures.enough()) failures.note(checker.check(c));
        }
      }
    }
  }
  const bool has_loops = convship::available_isas().size() > 1;
  CHECK((!has_loops || checker.tally().calls[static_cast<std::size_t>(Family::groups)] > 400));
}

// Loops take eight taps together where their channels adjoin, and may not where what
// adjoins are the channels of neighbouring pixels: 4 and 12 of them here.
TEST_CASE("every output width of layers whose channels adjoin") {
  Checker<float> checker;
  Failures failures;
  for (int64_t number = 0, width = 1; width <= 31; ++width) {
    for (const Pair kernel : {Pair{1, 1}, Pair{2, 1}, Pair{2, 3}, Pair{3, 3}}) {
      for (const int64_t channels : {4, 8, 12, 16, 24, 56}) {
        Case c;
        c.number = static_cast<uint64_t>(number++);
        const int64_t stride = number % 5 == 0 ? 2 : 1;
        const Pair padding = number % 3 == 0 ? Pair{0, 0} : Pair{kernel.h / 2, kernel.w / 2};
        const Pair image{number % 4 + 3, (width - 1) * stride + kernel.w - 2 * padding.w};
        c.g = simple(channels, image, number % 2 == 0 ? 16 : 25 + 8 * (number % 4), kernel);
        c.g.stride = {stride, stride};
        c.g.padding = padding;
        if (image.w < 1 || !complete(c.g, false)) continue;
        constexpr std::array kLayouts{Layout::blocked, Layout::nhwc, Layout::nchw};
        c.in = kLayouts[static_cast<std::size_t>(number % 3)];
        c.out = number % 7 < 4 ? Layout::blocked : Layout::nhwc;
        c.integers = number % 2 == 0;
        c.residual = number % 4 == 1;
        c.flush_end = number % 8 < 4;
        if (!failures.enough()) failures.note(checker.check(c));
      }
    }
  }
  const bool has_loops = convship::available_isas().size() > 1;
  CHECK((!has_loops || checker.tally().calls[static_cast<std::size_t>(Family::channels)] > 400));
}

// Blocks of 16 channels, whichever of them belong to a group: its first one may be any of a block.
TEST_CASE("groups that begin within a block of channels") {
  Checker<float> checker;
  Failures failures;
  for (int64_t number = 0, width = 1; width <= 13; ++width) {
    for (const int64_t channels : {8, 12, 20, 24, 28, 40, 48}) {
      for (const int64_t out : {channels, channels + 4, int64_t{24}}) {
        Case c;
        c.number = static_cast<uint64_t>(number++);
        const int64_t stride = number % 5 == 0 ? 2 : 1;
        c.g = simple(3 * channels, {9, width * stride}, 3 * out, {3, 3});
        c.g.groups = 3;
        c.g.stride = {stride, stride};
        c.g.padding = {1, 1};
        if (number % 4 == 3) c.g.pool_size = c.g.pool_stride = {2, 2};
        if (!complete(c.g, /*ceil_mode=*/true)) continue;
        c.in = number % 3 == 0 ? Layout::nhwc : Layout::blocked;
        c.out = number % 7 == 0 ? Layout::nhwc : Layout::blocked;
        c.integers = number % 2 == 0;
        c.residual = number % 4 == 1;
        c.flush_end = number % 8 < 4;
        c.width = number % 6 == 0 ? 2 : 1;
        if (!failures.enough()) failures.note(checker.check(c));
      }
    }
  }
  const auto calls = [&](Family family) {
    return checker.tally().calls[static_cast<std::size_t>(family)];
  };
  const bool has_loops = convship::available_isas().size() > 1;
  CHECK((!has_loops || calls(Family::winograd_2x2_3x3) > 50));
  CHECK((!has_loops || calls(Family::channels) > 50));
}
