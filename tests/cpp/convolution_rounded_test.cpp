// Convolutions of narrower numbers: what they multiply is what was rounded, and
// their sums are as near as those of float32. On every instruction set, also
// where the CPU has no instructions for such numbers.
#include <initializer_list>
#include <numeric>

#include "convolution_test.h"
#include "kernels/instruction_set.h"

namespace {

using namespace convolution_test;
using convship::kernels::conv2d::Rounding;

Rounding draw_rounding(Random& random, Rounding::Kind kind, const std::vector<float>& x) {
  Rounding rounding{kind};
  if (kind != Rounding::Kind::int8) return rounding;
  float largest = 0;
  for (const float value : x) largest = std::max(largest, std::fabs(value));
  rounding.zero_point = random.one_in(2) ? 0 : static_cast<int32_t>(random.draw(0, 255));
  // Some inputs lie beyond the limits.
  const double range = random.one_in(3) ? 0.5 : 1;
  const double levels = std::max(rounding.zero_point, 255 - rounding.zero_point);
  rounding.scale = largest > 0 ? static_cast<float>(range * largest / levels) : 1;
  return rounding;
}

// To what such layers hold.
void round_weights(const WeightShape& shape, Rounding::Kind kind, std::vector<float>& weight) {
  const int64_t count = shape.channels * shape.kernel.h * shape.kernel.w;
  for (int64_t o = 0; o < shape.c_out; ++o) {
    float* row = weight.data() + o * count;
    const float step = weight_step(row, count);
    for (int64_t i = 0; i < count; ++i) {
      if (kind == Rounding::Kind::bfloat16) {
        row[i] = Rounding{kind}(row[i]);
      } else if (step > 0) {
        row[i] = std::nearbyint(row[i] / step) * step;
      }
    }
  }
}

// Of the rounded values. Integers are summed around the zero point, padding as
// well, so errors are relative to sums of the largest level.
Expected<double> expected(const Case& c, const Tensors<float>& rounded, const Rounding& rounding) {
  const Geometry& g = c.g;
  const Tensors<double> t = widened<double>(rounded);
  const Tensors<double> m = magnitudes(t);
  std::vector<double> sums = full_sums(c, m);
  const int64_t taps = g.c_in / g.groups * g.kernel.h * g.kernel.w;
  if (rounding.kind == Rounding::Kind::int8) {
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const int64_t o = static_cast<int64_t>(i) / (g.conv.h * g.conv.w) % g.c_out;
      const auto* row = m.w.data() + o * taps;
      const double weights = std::accumulate(row, row + taps, 0.0);
      sums[i] = 255.0 * rounding.scale * weights + (m.b.empty() ? 0 : m.b[o]) +
                (m.r.empty() ? 0 : m.r[i]);
    }
  }
  // Products of bfloat16 below the smallest normal number count as 0.
  return expected_within<float>(c, t, sums, static_cast<double>(taps) + 6, 0x1p-120);
}

class RoundedChecker {
 public:
  std::string check(Case c, Rounding::Kind kind) {
    c.index = Index::none;
    c.integers = false;
    c.special = {};
    Random random(c.number * 7 + static_cast<uint64_t>(kind));
    const Geometry& g = c.g;
    Tensors<float> t = draw_tensors<float>(c);
    const WeightShape shape{g.c_out, g.c_in / g.groups, g.kernel, g.groups};
    round_weights(shape, kind, t.w);
    const Problem<float> problem(c, arenas_, t);
    const Rounding rounding = draw_rounding(random, kind, problem.tensors().x);
    const auto convolution = problem.convolution(Accuracy::direct, rounding);
    for (const std::string& isa : convship::available_isas()) {
      convship::set_isa(isa);
      const Written<float> written = problem.run(*convolution);
      const std::string family = convship::last_family();
      bool words = false;
      for (const Family rounds : {Family::words_bfloat16, Family::words_int8,
                                  Family::tiles_bfloat16, Family::tiles_int8}) {
        words = words || family == family_name(rounds);
      }
      words_ += words ? 1 : 0;
      Tensors<float> rounded = problem.tensors();
      if (words || kind == Rounding::Kind::int8) {
        for (float& value : rounded.x) value = rounding(value);
      }
      std::string wrong = judge(written, expected(c, rounded, rounding));
      if (wrong.empty() && !same(written, again(c, t, rounding))) wrong = "threads have other bits";
      if (wrong.empty() && !problem.inputs_unchanged()) wrong = "inputs were written";
      if (!wrong.empty()) return isa + ", " + family + ": " + wrong + "; " + describe(c);
    }
    return {};
  }

  int64_t words() const { return words_; }

 private:
  static std::string judge(const Written<float>& written, const Expected<double>& e) {
    if (written.complaint) return written.complaint;
    for (std::size_t i = 0; i < written.y.size(); ++i) {
      if (std::isinf(e.bound[i]) || written.y[i] == e.value[i]) continue;
      if (!(std::fabs(written.y[i] - e.value[i]) <= e.bound[i])) {
        std::ostringstream text;
        text << "output " << i << " is " << written.y[i] << ", expected " << e.value[i] << " +- "
             << e.bound[i];
        return text.str();
      }
    }
    return {};
  }

  // With other threads, and packed anew.
  Written<float> again(Case c, const Tensors<float>& t, const Rounding& rounding) const {
    c.width = c.width == 1 ? 3 : 1;
    const Problem<float> problem(c, arenas_, t);
    return problem.run(*problem.convolution(Accuracy::direct, rounding));
  }

  static bool same(const Written<float>& a, const Written<float>& b) {
    return a.y.size() == b.y.size() &&
           (a.y.empty() || std::memcmp(a.y.data(), b.y.data(), a.y.size() * sizeof(float)) == 0);
  }

  Arenas arenas_;
  int64_t words_ = 0;
};

}  // namespace

TEST_CASE("rounded: random shapes") {
  for (const auto kind : {Rounding::Kind::bfloat16, Rounding::Kind::int8}) {
    const bool integers = kind == Rounding::Kind::int8;
    RoundedChecker checker;
    Failures failures;
    for (uint64_t number = 0; number < 2'000 && !failures.enough(); ++number) {
      failures.note(checker.check(draw_case(number, 3), kind));
    }
    MESSAGE(std::string(integers ? "int8" : "bfloat16"), ": ", checker.words(),
            " calls by its instructions");
    int sets = 0;  // that have such instructions
    for (const std::string& name : convship::available_isas()) {
      convship::set_isa(name);
      const auto& isa = instruction_set(active_instruction_set());
      const bool words = integers ? int8_loops(isa) != nullptr : bfloat16_loops(isa) != nullptr;
      const bool tiles = integers ? int8_tiles(isa) != nullptr : bfloat16_tiles(isa) != nullptr;
      sets += words || tiles ? 1 : 0;
    }
    CHECK(checker.words() >= 500 * sets);
  }
}

TEST_CASE("rounded: every output width, channel and vector") {
  RoundedChecker checker;
  Failures failures;
  for (const auto kind : {Rounding::Kind::bfloat16, Rounding::Kind::int8}) {
    for (int64_t width = 1; width <= 35; ++width) {
      for (const int64_t c_in : {1, 2, 3, 5, 16, 17, 33}) {
        Case c;
        c.name = "width";
        c.number = static_cast<uint64_t>(width * 64 + c_in);
        c.g = simple(c_in, {3, width + 2}, 1 + (width * c_in) % 70, {3, 3});
        c.in = static_cast<Layout>(width % kInputLayouts);
        if (c.in == Layout::expanded) c.in = Layout::nchw;
        c.out = static_cast<Layout>(c_in % kOutputLayouts);
        REQUIRE(complete(c.g, false));
        if (!failures.enough()) failures.note(checker.check(c, kind));
      }
    }
  }
}

TEST_CASE("rounded: weights that are not are told apart") {
  const std::vector<float> levels = {1.27f, -0.5f, 0.01f, 0, 127, -64, 1, 3};
  CHECK(are_rounded(levels.data(), 2, 4, Rounding::Kind::int8));
  CHECK_FALSE(are_rounded(levels.data(), 1, 8, Rounding::Kind::int8));
  CHECK_FALSE(are_rounded(levels.data(), 2, 4, Rounding::Kind::bfloat16));
  CHECK(are_rounded(levels.data() + 4, 1, 4, Rounding::Kind::bfloat16));
}
