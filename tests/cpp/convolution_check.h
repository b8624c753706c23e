// Compares what the kernels write for a case with what they should write, on
// every instruction set of this machine.
#pragma once

#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "convolution_problem.h"
#include "convolution_winograd.h"
#include "convship/isa.h"

namespace convolution_test {

struct Tally {
  int64_t cases = 0;
  int64_t trusted = 0;  // cases with 30 % or more results that are not zero
  int64_t comparisons = 0;
  int64_t reals = 0;    // results of direct sums of more than 64 terms ...
  int64_t drifted = 0;  // ... that are further off than rounding errors usually add up to
  std::array<double, kFamilies> worst{};   // error in units of the bound, plain: direct
  std::array<int64_t, kFamilies> calls{};  // that a family of loops answered
};

template <typename T>
class Checker {
 public:
  using Wide = typename Numbers<T>::Wide;

  // What went wrong, in one line with all that repeats it; empty if nothing.
  std::string check(const Case& c) {
    const Problem<T> problem(c, arenas_);
    const auto direct = problem.convolution(Accuracy::direct);
    const auto fast = problem.convolution(Accuracy::fast);
    Answers answers(c, problem.tensors());
    tally_.cases += 1;
    tally_.trusted += answers.mostly_not_zero() ? 1 : 0;
    for (const std::string& isa : convship::available_isas()) {
      convship::set_isa(isa);
      const Written<T> written = problem.run(*direct);
      count_run();
      std::string wrong = judge(c, written, answers, Family::plain);
      const Family family = c.index == Index::none ? fast->family(c.g) : direct->family(c.g);
      const bool same = family == direct->family(c.g);
      if (wrong.empty() && (!same || c.number % 8 == 0)) {
        const Written<T> quick = problem.run(*fast);
        count_run();
        wrong = judge(c, quick, answers, same ? Family::plain : family);
        if (same && wrong.empty() && !same_results(written, quick)) wrong = "not direct's bits";
        if (!wrong.empty()) wrong = std::string("fast, ") + family_name(family) + ": " + wrong;
      }
      if (wrong.empty() && !problem.inputs_unchanged()) wrong = "inputs were written";
      if (!wrong.empty()) return isa + ": " + wrong + "; " + describe(c);
    }
    return {};
  }

  const Tally& tally() const { return tally_; }

 private:
  // By what ran, which is not always what the sizes alone tell.
  void count_run() {
    for (std::size_t i = 0; i < kFamilies; ++i) {
      if (convship::last_family() == family_name(static_cast<Family>(i))) tally_.calls[i] += 1;
    }
  }

  // Computed once for all instruction sets, by kind of bound when first needed.
  class Answers {
   public:
    Answers(const Case& c, const Tensors<T>& t) : case_(c), t_(t) {
      if (c.integers && c.special.place == Special::Place::none) {
        exact_ = expected_exactly(c, widened<int64_t>(t));
      } else {
        within(Family::plain);
      }
    }

    const std::optional<Expected<int64_t>>& exact() const { return exact_; }

    // Family::plain stands for all direct sums.
    const Expected<Wide>& within(Family family) {
      auto& slot = within_[static_cast<std::size_t>(family)];
      if (!slot) {
        const Tensors<Wide> t = widened<Wide>(t_);
        slot = family == Family::plain ? expected_directly<T>(case_, t)
                                       : expected_by_winograd<T>(case_, t, family);
      }
      return *slot;
    }

    bool mostly_not_zero() {
      const auto count = [](const auto& values) {
        std::size_t not_zero = 0;
        for (const auto value : values) not_zero += value != 0;
        return not_zero > 0 && 10 * not_zero >= 3 * values.size();
      };
      return exact_ ? count(exact_->value) : count(within(Family::plain).value);
    }

   private:
    Case case_;
    const Tensors<T>& t_;
    std::optional<Expected<int64_t>> exact_;
    std::array<std::optional<Expected<Wide>>, kFamilies> within_;
  };

  static bool same_results(const Written<T>& a, const Written<T>& b) {
    return a.index == b.index &&
           (a.y.empty() || std::memcmp(a.y.data(), b.y.data(), a.y.size() * sizeof(T)) == 0);
  }

  std::string judge(const Case& c, const Written<T>& written, Answers& answers, Family family) {
    if (written.complaint) return written.complaint;
    tally_.comparisons += static_cast<int64_t>(written.y.size());
    if (answers.exact() && family == Family::plain) return judge_exactly(written, *answers.exact());
    const Expected<Wide>& expected = answers.within(family);
    // Tiles take numbers below the smallest normal one for 0.
    const bool flushes = convship::last_family() == family_name(Family::tiles_bfloat16);
    const double flushed = flushes ? 0x1p-120 : 0;
    for (std::size_t i = 0; i < written.y.size(); ++i) {
      const Wide got = Accumulator<T>::widen(written.y[i]);
      if (!close(got, expected.value[i], expected.bound[i] + flushed)) {
        return complaint(i, got, expected.value[i], expected.bound[i]);
      }
    }
    for (std::size_t i = 0; i < written.index.size(); ++i) {
      if (!fits(c, written.index[i], i, expected)) {
        return complaint(i, written.index[i], expected.index[i], 0) + " (index)";
      }
    }
    if (Numbers<T>::kStorage == 0 && c.special.place == Special::Place::none) {
      note_errors(c, written, expected, family);
    }
    return {};
  }

  static std::string judge_exactly(const Written<T>& written, const Expected<int64_t>& expected) {
    for (std::size_t i = 0; i < written.y.size(); ++i) {
      const T value = narrowed<T>(static_cast<double>(expected.value[i]));
      if (!same_bits(written.y[i], value)) {
        return complaint(i, Accumulator<T>::widen(written.y[i]), Accumulator<T>::widen(value), 0);
      }
    }
    for (std::size_t i = 0; i < written.index.size(); ++i) {
      if (written.index[i] != expected.index[i]) {
        return complaint(i, written.index[i], expected.index[i], 0) + " (index)";
      }
    }
    return {};
  }

  static bool close(Wide got, Wide expected, double bound) {
    if (std::isinf(bound)) return true;
    if (std::isnan(expected)) return std::isnan(got);
    // No sum is -0.0, unless one that is negative underflows.
    if (got == 0 && std::signbit(got) && !(expected < 0)) return false;
    if (std::isinf(expected)) return got == expected;
    const double storage =
        Numbers<T>::kStorage * (std::fabs(static_cast<double>(expected)) + bound) +
        Numbers<T>::kStorageUnderflow;
    return std::fabs(got - expected) <= bound + storage;
  }

  // Whether the tap is one that could have won window i.
  static bool fits(const Case& c, int32_t tap, std::size_t i, const Expected<Wide>& e) {
    const Geometry& g = c.g;
    const Wide value = e.value[i];
    if (!std::isfinite(value)) return tap == e.index[i];
    const auto at = static_cast<int64_t>(i);
    const int64_t y =
        at / g.pooled.w % g.pooled.h * g.pool_stride.h - g.pool_padding.h + tap / g.pool_size.w;
    const int64_t x = at % g.pooled.w * g.pool_stride.w - g.pool_padding.w + tap % g.pool_size.w;
    if (tap < 0 || tap >= g.pool_size.h * g.pool_size.w || y < 0 || y >= g.conv.h || x < 0 ||
        x >= g.conv.w) {
      return false;
    }
    const int64_t plane = at / (g.pooled.h * g.pooled.w);
    const Wide winner = e.conv[(plane * g.conv.h + y) * g.conv.w + x];
    return std::fabs(value - winner) <= 2 * e.bound[i];
  }

  // Rounding errors add up like steps in random directions, to the root of
  // their number; many that reach further mean something else is lost.
  void note_errors(const Case& c,
                   const Written<T>& written,
                   const Expected<Wide>& expected,
                   Family family) {
    const Geometry& g = c.g;
    const auto terms = static_cast<double>(g.c_in / g.groups * g.kernel.h * g.kernel.w + 1);
    double& worst = tally_.worst[static_cast<std::size_t>(family)];
    for (std::size_t i = 0; i < written.y.size(); ++i) {
      const Wide got = Accumulator<T>::widen(written.y[i]);
      const auto error = static_cast<double>(std::fabs(got - expected.value[i]));
      if (expected.bound[i] > 0) worst = std::max(worst, error / expected.bound[i]);
      if (terms <= 64 || family != Family::plain) continue;
      tally_.reals += 1;
      tally_.drifted += error > 8 / std::sqrt(terms) * expected.bound[i];
    }
  }

  static std::string complaint(std::size_t i, auto got, auto expected, double bound) {
    std::ostringstream to;
    to.precision(17);
    to << "output " << i << " is " << got << ", expected " << expected;
    if (bound > 0) to << " +- " << bound;
    return to.str();
  }

  Arenas arenas_;
  Tally tally_;
};

}  // namespace convolution_test
