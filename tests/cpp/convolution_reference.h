// The convolution as its formula says, one tap after the other, and how far
// from it the kernels may be.
//
// Direct sums. With u the unit roundoff and K the number of terms (taps, bias,
// residual), a sum in any order, with fused or separate roundings, is within
//   gamma(K) * S,  gamma(K) = K u / (1 - K u),  S = sum |w x| + |b| + |r|
// of the exact one (N. Higham, Accuracy and Stability of Numerical Algorithms,
// chapter 3), plus K times what underflow can cost. The reference's own error
// is bounded alike. relu and max move no further apart what goes into them, so
// a pooled value may be as far off as the worst value of its window.
#pragma once

#include <cmath>
#include <vector>

#include "convolution_memory.h"

namespace convolution_test {

// What the reference sums in, where the values are not integers.
template <typename T>
struct Numbers {
  using Wide = double;
  static constexpr double kUnit = 0x1p-24;
  static constexpr double kWideUnit = 0x1p-53;
  static constexpr double kUnderflow = 0x1p-149;
  static constexpr double kStorage = 0;  // unit of a result that is rounded once more
  static constexpr double kStorageUnderflow = 0;
  static constexpr double kMost = 0x1.fffffep127;
};
template <>
struct Numbers<double> {
  using Wide = long double;
  static constexpr double kUnit = 0x1p-53;
  static constexpr double kWideUnit = 0x1p-64;
  static constexpr double kUnderflow = 0x1p-1074;
  static constexpr double kStorage = 0;
  static constexpr double kStorageUnderflow = 0;
  static constexpr double kMost = std::numeric_limits<double>::max();
};
template <>
struct Numbers<BFloat16> : Numbers<float> {
  static constexpr double kStorage = 0x1p-8;
  static constexpr double kStorageUnderflow = 0x1p-134;
  static constexpr double kMost = 0x1.fep127;
};
static_assert(std::numeric_limits<long double>::digits >= 64);

// The tensors of a case, dense. Without bias or residual those are empty.
template <typename V>
struct Tensors {
  std::vector<V> x, w, b, r;
};

// What a kernel should have written, and how far off each value may be.
template <typename Wide>
struct Expected {
  std::vector<Wide> conv;     // after bias, residual and activation
  std::vector<double> slack;  // of conv; infinite where sums may or may not overflow
  std::vector<Wide> value;
  std::vector<double> bound;
  std::vector<int32_t> index;
};

// Positions of [0, count) whose source lies inside of the image, found by
// trying: the kernels have a formula, which this must not share.
inline Range inside(int64_t offset, int64_t stride, int64_t extent, int64_t count) {
  Range range{0, count};
  while (range.begin < range.end && range.begin * stride + offset < 0) ++range.begin;
  while (range.end > range.begin && (range.end - 1) * stride + offset >= extent) --range.end;
  return range;
}

// Sums of products and bias for all conv results, dense NCHW.
template <typename Wide>
std::vector<Wide> conv_sums(const Geometry& g, const Tensors<Wide>& t) {
  std::vector<Wide> sums(g.n * g.c_out * g.conv.h * g.conv.w);
  const int64_t channels = g.c_in / g.groups;
  for (int64_t plane = 0; plane < g.n * g.c_out; ++plane) {
    const int64_t n = plane / g.c_out;
    const int64_t o = plane % g.c_out;
    Wide* const to = sums.data() + plane * g.conv.h * g.conv.w;
    std::fill(to, to + g.conv.h * g.conv.w, t.b.empty() ? Wide(0) : t.b[o]);
    const Wide* w = t.w.data() + o * channels * g.kernel.h * g.kernel.w;
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t channel = o / (g.c_out / g.groups) * channels + c;
      const Wide* x = t.x.data() + (n * g.c_in + channel) * g.image.h * g.image.w;
      for (int64_t i = 0; i < g.kernel.h; ++i) {
        const int64_t top = i * g.dilation.h - g.padding.h;
        const Range rows = inside(top, g.stride.h, g.image.h, g.conv.h);
        for (int64_t j = 0; j < g.kernel.w; ++j, ++w) {
          const int64_t left = j * g.dilation.w - g.padding.w;
          const Range columns = inside(left, g.stride.w, g.image.w, g.conv.w);
          for (int64_t y = rows.begin; y < rows.end; ++y) {
            Wide* row = to + y * g.conv.w;
            const Wide* from = x + (y * g.stride.h + top) * g.image.w + left;
            for (int64_t z = columns.begin; z < columns.end; ++z) {
              row[z] += *w * from[z * g.stride.w];
            }
          }
        }
      }
    }
  }
  return sums;
}

template <typename Wide>
std::vector<Wide> full_sums(const Case& c, const Tensors<Wide>& t) {
  std::vector<Wide> sums = conv_sums(c.g, t);
  for (std::size_t i = 0; i < t.r.size(); ++i) sums[i] += t.r[i];
  return sums;
}

template <typename Wide>
Tensors<Wide> magnitudes(Tensors<Wide> t) {
  for (auto* values : {&t.x, &t.w, &t.b, &t.r}) {
    for (Wide& value : *values) value = value < 0 ? -value : value;
  }
  return t;
}

// As torch.nn.functional.max_pool2d: the first of equals, the last NaN.
template <typename Wide>
void pool(const Geometry& g, Expected<Wide>& e) {
  const int64_t planes = g.n * g.c_out;
  for (int64_t at = 0; at < planes * g.pooled.h * g.pooled.w; ++at) {
    const int64_t top = at / g.pooled.w % g.pooled.h * g.pool_stride.h - g.pool_padding.h;
    const int64_t left = at % g.pooled.w * g.pool_stride.w - g.pool_padding.w;
    const int64_t plane = at / (g.pooled.h * g.pooled.w) * g.conv.h * g.conv.w;
    int32_t winner = -1;
    Wide best = 0;
    double bound = 0;
    for (int64_t y = std::max<int64_t>(0, top); y < std::min(g.conv.h, top + g.pool_size.h); ++y) {
      for (int64_t z = std::max<int64_t>(0, left); z < std::min(g.conv.w, left + g.pool_size.w);
           ++z) {
        const int64_t from = plane + y * g.conv.w + z;
        const Wide value = e.conv[from];
        if (winner < 0 || value > best || value != value) {
          best = value;
          winner = static_cast<int32_t>((y - top) * g.pool_size.w + z - left);
        }
        bound = std::max(bound, e.slack[from]);
      }
    }
    e.value.push_back(best);
    e.index.push_back(winner);
    e.bound.push_back(bound);
  }
}

template <typename Wide>
void finish(const Case& c, Expected<Wide>& e) {
  for (std::size_t i = 0; i < e.conv.size(); ++i) {
    if (c.relu && e.conv[i] < 0) e.conv[i] = 0;
  }
  pool(c.g, e);
}

// Integers: no rounding anywhere, so nothing may be off.
inline Expected<int64_t> expected_exactly(const Case& c, const Tensors<int64_t>& t) {
  Expected<int64_t> e;
  e.conv = full_sums(c, t);
  e.slack.resize(e.conv.size());
  finish(c, e);
  return e;
}

// What `terms` roundings may cost, for each unit of the sum of magnitudes.
template <typename T>
double gamma_of(double terms) {
  const double u = terms * Numbers<T>::kUnit;
  const double wide = terms * Numbers<T>::kWideUnit;
  return u / (1 - u) + wide / (1 - wide);
}

// magnitudes: for each conv value, what `terms` roundings are relative to.
template <typename T, typename Wide>
Expected<Wide> expected_within(const Case& c,
                               const Tensors<Wide>& t,
                               const std::vector<Wide>& magnitudes,
                               double terms,
                               double underflow) {
  constexpr Wide kInfinity = std::numeric_limits<Wide>::infinity();
  constexpr Wide kMost = Numbers<T>::kMost;
  Expected<Wide> e;
  e.conv = full_sums(c, t);
  for (std::size_t i = 0; i < e.conv.size(); ++i) {
    Wide& value = e.conv[i];
    const Wide magnitude = magnitudes[i];
    // Where a value is no number, its class is compared and no distance.
    double slack = 0;
    if (std::isfinite(value)) {
      slack = gamma_of<T>(terms) * static_cast<double>(magnitude) + terms * underflow;
      if (std::fabs(value) - slack > kMost * (1 + Numbers<T>::kStorage)) {
        value = value < 0 ? -kInfinity : kInfinity;
        slack = 0;
      } else if (magnitude + slack > kMost) {
        slack = std::numeric_limits<double>::infinity();
      }
    }
    e.slack.push_back(slack);
  }
  finish(c, e);
  return e;
}

template <typename T, typename Wide = typename Numbers<T>::Wide>
Expected<Wide> expected_directly(const Case& c, const Tensors<Wide>& t) {
  const Geometry& g = c.g;
  const double taps = static_cast<double>(g.c_in / g.groups * g.kernel.h * g.kernel.w);
  return expected_within<T>(c, t, full_sums(c, magnitudes(t)), taps + 2, Numbers<T>::kUnderflow);
}

}  // namespace convolution_test
