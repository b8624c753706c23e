// What one case of the convolution tests is, made from its number alone, so
// that a number is all it takes to repeat a failure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <string>

#include "kernels/conv2d/geometry.h"

namespace convolution_test {

using namespace convship::kernels::conv2d;

// SplitMix64: the same numbers with every standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  int64_t draw(int64_t least, int64_t most) {
    return least + static_cast<int64_t>(next() % static_cast<uint64_t>(most - least + 1));
  }
  bool one_in(int64_t count) { return draw(1, count) == 1; }
  // In (-1, 1).
  double real() { return static_cast<double>(static_cast<int64_t>(next()) >> 11) * 0x1p-52; }

 private:
  uint64_t state_;
};

enum class Layout { nchw, nhwc, blocked, misaligned, transposed, sliced, wide_pixels, expanded };
constexpr int kOutputLayouts = 7;  // an expanded output would have two values in one place
constexpr int kInputLayouts = 8;
constexpr int kWhole = 4;  // Layout::expanded: all dimensions, else one of n, c, h, w

enum class Index { none, narrow, wide };

// A value put into one place of an otherwise ordinary case.
struct Special {
  enum class Place { none, input, weight, bias, residual } place = Place::none;
  int64_t at = 0;  // of the dense tensor
  double value = 0;
};

struct Case {
  const char* name = "random";
  uint64_t number = 0;  // seeds the values
  Geometry g{};
  bool bias = true;
  bool relu = true;
  bool residual = false;
  Index index = Index::none;
  Layout in = Layout::nchw;
  Layout out = Layout::nchw;
  int expanded = 0;        // the dimension that has step 0
  bool flush_end = true;   // memory ends at, or begins at, an inaccessible page
  bool integers = true;    // else real numbers
  int64_t magnitude = 32;  // of integers
  int exponent = 0;        // of two, scales real inputs
  int width = 1;           // of the Parallel; two real threads when more than 1
  Special special;
};

inline int64_t macs(const Geometry& g) {
  return g.n * g.c_out * g.conv.h * g.conv.w * g.c_in / g.groups * g.kernel.h * g.kernel.w;
}

inline std::string describe(const Case& c) {
  const Geometry& g = c.g;
  std::ostringstream to;
  const auto pair = [&](const char* name, Pair p) {
    to << ' ' << name << '=' << p.h << 'x' << p.w;
  };
  to << c.name << " CONVSHIP_CASE=" << c.number << ": n=" << g.n << " c_in=" << g.c_in;
  pair("image", g.image);
  to << " c_out=" << g.c_out;
  pair("kernel", g.kernel);
  pair("stride", g.stride);
  pair("padding", g.padding);
  pair("dilation", g.dilation);
  to << " groups=" << g.groups;
  pair("pool", g.pool_size);
  pair("pool_stride", g.pool_stride);
  pair("pool_padding", g.pool_padding);
  pair("conv", g.conv);
  pair("pooled", g.pooled);
  to << " bias=" << c.bias << " relu=" << c.relu << " residual=" << c.residual
     << " index=" << static_cast<int>(c.index) << " in=" << static_cast<int>(c.in)
     << " out=" << static_cast<int>(c.out) << " expanded=" << c.expanded
     << " flush_end=" << c.flush_end << " integers=" << c.integers << " magnitude=" << c.magnitude
     << " exponent=" << c.exponent << " width=" << c.width;
  if (c.special.place != Special::Place::none) {
    to << " special=" << static_cast<int>(c.special.place) << '@' << c.special.at << ':'
       << c.special.value;
  }
  return to.str();
}

// As torch computes it; 0 where torch refuses the sizes.
inline int64_t pooled_size(int64_t conv, int64_t size, int64_t stride, int64_t padding, bool ceil) {
  const int64_t space = conv + 2 * padding - size + (ceil ? stride - 1 : 0);
  if (conv < 1 || space < 0) return 0;
  const int64_t count = space / stride + 1;
  // A window must not begin in the padding on the right.
  return ceil && (count - 1) * stride >= conv + padding ? count - 1 : count;
}

// Fills pooled; false where there is no such pooling.
inline bool complete_pooling(Geometry& g, bool ceil_mode) {
  g.pooled = {pooled_size(g.conv.h, g.pool_size.h, g.pool_stride.h, g.pool_padding.h, ceil_mode),
              pooled_size(g.conv.w, g.pool_size.w, g.pool_stride.w, g.pool_padding.w, ceil_mode)};
  return g.pooled.h > 0 && g.pooled.w > 0;
}

// Fills conv and pooled; false where there is no such convolution.
inline bool complete(Geometry& g, bool ceil_mode) {
  const auto conv = [](int64_t image, int64_t kernel, int64_t stride, int64_t pad, int64_t step) {
    const int64_t space = image + 2 * pad - step * (kernel - 1) - 1;
    return space < 0 ? 0 : space / stride + 1;
  };
  g.conv = {conv(g.image.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h),
            conv(g.image.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w)};
  return complete_pooling(g, ceil_mode);
}

// Half of the draws are small: that is where loops end.
inline Pair draw_pair(Random& random, int64_t least, int64_t small, int64_t most) {
  const auto draw = [&] { return random.draw(least, random.one_in(2) ? small : most); };
  const int64_t h = draw();
  return {h, draw()};
}

inline void draw_channels(Random& random, Geometry& g) {
  if (random.one_in(8)) {  // as many out as in, whole groups in a vector
    const int64_t width = int64_t{1} << random.draw(0, 4);
    g.groups = random.draw(1, 67 / width);
    g.c_in = g.c_out = g.groups * width;
    return;
  }
  const int64_t kind = random.draw(0, 10);
  if (kind < 6) {
    g.groups = 1;
  } else if (kind < 9) {
    g.groups = random.draw(2, 8);
  } else {
    g.groups = random.draw(1, 67);  // one channel each
  }
  const int64_t most = kind < 9 ? 67 / g.groups : 1;
  const Pair channels = draw_pair(random, 1, std::min<int64_t>(most, 8), most);
  g.c_in = g.groups * channels.h;
  const int64_t multiplier =
      random.one_in(2) ? 1 : random.draw(1, std::max<int64_t>(1, 67 / g.groups));
  g.c_out = g.groups * (kind < 9 ? channels.w : multiplier);
}

// Makes one size after the other smaller until the case is cheap enough.
inline void shrink(Random& random, Geometry& g, bool ceil_mode, int64_t most_macs) {
  while (complete(g, ceil_mode) && macs(g) > most_macs) {
    const auto less = [](int64_t value) { return std::max<int64_t>(1, value * 2 / 3); };
    switch (random.draw(0, 4)) {
      case 0:
        g.n = less(g.n);
        break;
      case 1:
        g.image.h = less(g.image.h);
        break;
      case 2:
        g.image.w = less(g.image.w);
        break;
      case 3:
        g.c_in = g.groups * less(g.c_in / g.groups);
        break;
      default:
        g.c_out = g.groups * less(g.c_out / g.groups);
    }
  }
}

inline Geometry draw_geometry(Random& random) {
  for (;;) {
    Geometry g{};
    g.n = random.one_in(100) ? 0 : random.draw(1, 5);
    draw_channels(random, g);
    g.image = draw_pair(random, 1, 12, 70);
    g.kernel = draw_pair(random, 1, 3, 7);
    g.stride = draw_pair(random, 1, 1, 4);
    g.dilation = draw_pair(random, 1, 1, 3);
    g.padding = {random.draw(0, g.kernel.h), random.draw(0, g.kernel.w)};
    if (random.one_in(3)) g.padding = {0, 0};
    g.pool_size = g.pool_stride = {1, 1};
    if (!random.one_in(3)) {
      g.pool_size = draw_pair(random, 1, 2, 4);
      g.pool_stride = draw_pair(random, 1, 2, 4);
      g.pool_padding = {random.draw(0, g.pool_size.h / 2), random.draw(0, g.pool_size.w / 2)};
    }
    const bool ceil_mode = random.one_in(2);
    shrink(random, g, ceil_mode,
           random.one_in(50)  ? 4'000'000
           : random.one_in(4) ? 300'000
                              : 100'000);
    if (!complete(g, ceil_mode)) continue;
    if (random.one_in(6)) {  // other zeros below and right than above and left
      g.conv.h = std::max<int64_t>(1, g.conv.h + random.draw(-1, 2));
      g.conv.w = std::max<int64_t>(1, g.conv.w + random.draw(-1, 2));
    }
    if (complete_pooling(g, ceil_mode)) return g;
  }
}

// Sizes for which sums may be transformed instead of direct; each of the three
// transforms serves some.
inline Geometry draw_transformable(Random& random) {
  for (;;) {
    Geometry g{};
    g.n = g.groups = 1;
    const int64_t kind = random.draw(0, 2);
    const int64_t kernel = kind == 2 ? 5 : 3;
    g.c_in = kind == 0 ? random.draw(16, 40) : random.draw(64, 70);
    g.c_out = kind == 0 ? random.draw(16, 35) : random.draw(16, 18);
    g.kernel = {kernel, kernel};
    g.stride = g.dilation = g.pool_size = g.pool_stride = {1, 1};
    g.padding = {random.draw(0, kernel), random.draw(0, kernel)};
    const Pair conv = kind == 1   ? Pair{random.draw(16, 20), random.draw(17, 20)}
                      : kind == 2 ? Pair{random.draw(4, 10), random.draw(6, 10)}
                                  : Pair{random.draw(2, 14), random.draw(2, 14)};
    const bool dilated = random.one_in(4);
    if (dilated) g.dilation = {random.draw(1, 2), random.draw(1, 3)};
    const auto image = [&](int64_t size, int64_t dilation, int64_t padding) {
      return size * dilation + dilation * (kernel - 1) - 2 * padding;
    };
    g.image = {image(conv.h, g.dilation.h, g.padding.h), image(conv.w, g.dilation.w, g.padding.w)};
    if (random.one_in(4)) {
      g.n = g.groups = 2;
      g.c_in *= 2;
      g.c_out *= 2;
    }
    if (!dilated && random.one_in(2)) {
      g.pool_size = draw_pair(random, 1, 2, 4);
      g.pool_stride = draw_pair(random, 1, 2, 4);
      g.pool_padding = {random.draw(0, g.pool_size.h / 2), random.draw(0, g.pool_size.w / 2)};
    }
    if (g.image.h > 0 && g.image.w > 0 && complete(g, random.one_in(2))) return g;
  }
}

// Dilated kernels most of whose taps lie beyond the image.
inline Geometry draw_far_taps(Random& random) {
  for (;;) {
    Geometry g{};
    g.n = random.draw(1, 2);
    g.groups = random.one_in(4) ? 2 : 1;
    g.c_in = g.groups * random.draw(33, 70);
    g.c_out = g.groups * random.draw(16, 40);
    g.image = {random.draw(2, 14), random.draw(2, 14)};
    g.kernel = {random.draw(1, 3), random.draw(2, 3)};
    g.stride = {random.draw(1, 2), random.draw(1, 2)};
    g.dilation = {random.draw(1, g.image.h), random.draw(g.image.w / 2 + 1, g.image.w + 1)};
    g.padding = {random.draw(0, g.kernel.h / 2) * g.dilation.h, g.kernel.w / 2 * g.dilation.w};
    g.pool_size = g.pool_stride = {1, 1};
    if (complete(g, false)) return g;
  }
}

inline Case draw_case(uint64_t number, uint64_t salt) {
  Random random(number * 0x9e3779b97f4a7c15 + salt);
  Case c;
  c.number = number;
  c.g = random.one_in(40)   ? draw_transformable(random)
        : random.one_in(80) ? draw_far_taps(random)
                            : draw_geometry(random);
  c.bias = !random.one_in(4);
  c.relu = random.one_in(2);
  c.integers = random.one_in(2);
  const bool pooling =
      c.g.pool_size.h * c.g.pool_size.w > 1 || c.g.pool_stride.h > 1 || c.g.pool_stride.w > 1;
  if (random.one_in(4)) c.index = random.one_in(2) ? Index::narrow : Index::wide;
  c.residual = !pooling && c.index == Index::none && random.one_in(2);
  // Few different values make ties, which an index must settle.
  c.magnitude = c.index != Index::none && random.one_in(2) ? 2 : 32;
  c.exponent = static_cast<int>(random.one_in(2) ? 0 : random.draw(-30, 30));
  c.in = static_cast<Layout>(random.draw(0, kInputLayouts - 1));
  c.out = static_cast<Layout>(random.draw(0, kOutputLayouts - 1));
  c.expanded = static_cast<int>(random.draw(0, 3));
  c.flush_end = random.one_in(2);
  c.width = random.one_in(16) ? 2 : 1;
  return c;
}

}  // namespace convolution_test
