// The tensors of a case, in memory, and the call that is under test.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "convolution_reference.h"
#include "kernels/conv2d/convolution.h"

namespace convolution_test {

using namespace convship::kernels;

// Two real threads, the work split as unevenly as a caller may split it; says
// that there are `width` of them, which decides how finely work is cut.
class Threads final : public Parallel {
 public:
  explicit Threads(int width) : width_(width) {}
  int width() const override { return width_; }
  void run(int64_t count, int64_t /*grain*/, RangeBody body) const override {
    const int64_t cut = count / 3;
    std::thread other([&] {
      if (cut > 0) body(0, cut);
    });
    if (cut < count) body(cut, count);
    other.join();
  }

 private:
  int width_;
};

template <typename T>
T narrowed(double value) {
  return Accumulator<T>::narrow(static_cast<AccumulatorOf<T>>(value));
}

template <typename V, typename T>
std::vector<V> widened(const std::vector<T>& values) {
  std::vector<V> wide(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    wide[i] = static_cast<V>(Accumulator<T>::widen(values[i]));
  }
  return wide;
}

template <typename V, typename T>
Tensors<V> widened(const Tensors<T>& t) {
  return {widened<V>(t.x), widened<V>(t.w), widened<V>(t.b), widened<V>(t.r)};
}

// Integers that every T holds exactly, or reals.
template <typename T>
std::vector<T> draw_values(Random& random, int64_t count, const Case& c, int64_t step, int scale) {
  std::vector<T> values(count);
  for (T& value : values) {
    value =
        narrowed<T>(c.integers ? static_cast<double>(step * random.draw(-c.magnitude, c.magnitude))
                               : std::ldexp(random.real(), scale));
  }
  return values;
}

template <typename T>
Tensors<T> draw_tensors(const Case& c) {
  const Geometry& g = c.g;
  Random random(c.number + 1);
  Tensors<T> t;
  t.x = draw_values<T>(random, g.n * g.c_in * g.image.h * g.image.w, c, 1, c.exponent);
  t.w = draw_values<T>(random, g.c_out * (g.c_in / g.groups) * g.kernel.h * g.kernel.w, c, 1, 0);
  // Up to 512, the larger ones even as bfloat16 needs them.
  if (c.bias) t.b = draw_values<T>(random, g.c_out, c, c.magnitude == 32 ? 16 : 1, c.exponent);
  const int64_t outputs = g.n * g.c_out * g.conv.h * g.conv.w;
  if (c.residual) t.r = draw_values<T>(random, outputs, c, 1, c.exponent);
  const Special& s = c.special;
  std::vector<T>* const places[] = {nullptr, &t.x, &t.w, &t.b, &t.r};
  if (std::vector<T>* place = places[static_cast<int>(s.place)]) {
    (*place)[s.at] = narrowed<T>(s.value);
  }
  return t;
}

// Kept from case to case: their pages are in memory by then.
struct Arenas {
  Arena x, w, b, r, y, narrow, wide;
};

// Describes the latest problem, for when its call crashes.
inline std::string under_test;

// What one call wrote.
template <typename T>
struct Written {
  std::vector<T> y;
  std::vector<int32_t> index;
  const char* complaint = nullptr;
};

template <typename T>
class Problem {
 public:
  Problem(const Case& c, const Arenas& arenas) : Problem(c, arenas, draw_tensors<T>(c)) {}

  Problem(const Case& c, const Arenas& arenas, Tensors<T> tensors)
      : case_(c),
        t_(std::move(tensors)),
        x_(arenas.x, c.in, {c.g.n, c.g.c_in, c.g.image}, c.expanded, c.flush_end),
        y_(arenas.y, c.out, outputs(c), 0, c.flush_end),
        r_(arenas.r, c.out, c.residual ? outputs(c) : Sizes{}, 0, c.flush_end),
        w_(arenas.w, static_cast<int64_t>(t_.w.size()), c.flush_end),
        b_(arenas.b, static_cast<int64_t>(t_.b.size()), c.flush_end),
        narrow_(arenas.narrow, c.index == Index::narrow ? outputs(c).count() : 0, c.flush_end),
        wide_(arenas.wide, c.index == Index::wide ? outputs(c).count() : 0, c.flush_end) {
    under_test = describe(c);
    x_.put(t_.x);
    t_.x = x_.read();  // an expanded dimension has one value for all
    if (c.residual) r_.put(t_.r);
    w_.put(t_.w);
    b_.put(t_.b);
  }

  const Tensors<T>& tensors() const { return t_; }

  std::unique_ptr<Convolution<T>> convolution(Accuracy accuracy,
                                              const Rounding& rounding = {}) const {
    const Geometry& g = case_.g;
    const WeightShape shape{g.c_out, g.c_in / g.groups, g.kernel, g.groups};
    return std::make_unique<Convolution<T>>(w_.data(), case_.bias ? b_.data() : nullptr, shape,
                                            accuracy, rounding);
  }

  // With the active instruction set.
  Written<T> run(const Convolution<T>& convolution) const {
    const Serial serial;
    const Threads threads(case_.width);
    const Parallel& parallel = case_.width > 1 ? static_cast<const Parallel&>(threads) : serial;
    convolution.run(case_.g, case_.relu ? Activation::relu : Activation::none, x_.view_of_const(),
                    y_.view(), case_.residual ? r_.view_of_const() : View<const T>{},
                    {case_.index == Index::narrow ? narrow_.data() : nullptr,
                     case_.index == Index::wide ? wide_.data() : nullptr},
                    parallel);
    Written<T> written{y_.take(), {}, nullptr};
    if (case_.index == Index::narrow) {
      const auto narrow = narrow_.take();
      written.index.assign(narrow.begin(), narrow.end());
    }
    if (case_.index == Index::wide) written.index = wide_.take();
    for (const T& value : written.y) {
      if (!same_bits(value, poison<T>())) continue;
      written.complaint = "a value was not written, or memory around an input was read";
    }
    if (!y_.untouched()) written.complaint = "memory around the output was written";
    if ((case_.index == Index::narrow && !narrow_.untouched()) ||
        (case_.index == Index::wide && !wide_.untouched())) {
      written.complaint = "memory around the index was written";
    }
    return written;
  }

  bool inputs_unchanged() const {
    const auto equal = [](const std::vector<T>& a, const std::vector<T>& b) {
      return a.size() == b.size() &&
             (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
    };
    return equal(x_.read(), t_.x) && equal(w_.read(), t_.w);
  }

 private:
  static Sizes outputs(const Case& c) { return {c.g.n, c.g.c_out, c.g.pooled}; }

  Case case_;
  Tensors<T> t_;
  Placed<T> x_, y_, r_;
  PlacedList<T> w_, b_;
  PlacedList<uint8_t> narrow_;
  PlacedList<int32_t> wide_;
};

}  // namespace convolution_test
