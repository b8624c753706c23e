// Sizes of one conv_pool2d call. N images of C_in x H x W become
// N x C_out x conv.h x conv.w, which pooling turns into pooled.h x pooled.w.
#pragma once

#include <algorithm>
#include <cstdint>

namespace convship::kernels::conv2d {

// As torch.nn names them. Those from relu6 on follow the pooling, and are for
// calls without an index.
struct Activation {
  enum Kind {
    none,
    relu,
    relu6,
    sigmoid,
    hardsigmoid,
    silu,
    hardswish,
    gelu,
    gelu_tanh,   // gelu's approximation by a tanh
    leaky_relu,  // x, below zero times a
    clamp,       // to [a, b]: hardtanh
    elu,         // b * x, below zero a * (exp(x) - 1); so selu, too
    tanh,
    mish,
    softplus,  // log(1 + exp(x))
    abs,
    erf,
    exp,
    log,
    power,  // x^a; a is not 0, nor beyond 1000
  };
  static constexpr Kind kLast = power;

  Kind kind = none;
  float a = 0;
  float b = 0;

  constexpr Activation(Kind k = none, float first = 0, float second = 0)  // NOLINT: names a kind
      : kind(k), a(first), b(second) {}
  constexpr bool operator==(const Activation&) const = default;
};

// Whether f(x) <= f(y) for all x <= y, to the last bit: it may change places with a
// maximum.
constexpr bool is_monotone(const Activation& f) {
  switch (f.kind) {
    case Activation::none:
    case Activation::relu:
    case Activation::relu6:
      return true;
    case Activation::leaky_relu:
      return f.a >= 0;
    case Activation::clamp:
      return f.a <= f.b;
    default:
      return false;
  }
}

struct Pair {
  int64_t h;
  int64_t w;

  constexpr bool operator==(const Pair&) const = default;
};

// What of a geometry belongs to the weights alone.
struct WeightShape {
  int64_t c_out;
  int64_t channels;  // of the input, in one group
  Pair kernel;
  int64_t groups;

  constexpr bool operator==(const WeightShape&) const = default;
};

// All sizes are positive, except that n may be 0; the caller has checked that
// no product of them overflows and that pooled follows from the rest. padding is above
// and left of the image; below and right of it are as many zeros as `conv` takes.
struct Geometry {
  int64_t n;
  int64_t c_in;
  Pair image;
  int64_t c_out;
  Pair kernel;
  Pair stride;
  Pair padding;
  Pair dilation;
  int64_t groups;
  Pair pool_size;
  Pair pool_stride;
  Pair pool_padding;
  Pair conv;
  Pair pooled;
};

// Whether some tap lies outside of the image.
inline bool is_padded(const Geometry& g) {
  const auto reaches = [](int64_t conv, int64_t stride, int64_t kernel, int64_t dilation) {
    return (conv - 1) * stride + (kernel - 1) * dilation + 1;
  };
  return g.padding.h > 0 || g.padding.w > 0 ||
         reaches(g.conv.h, g.stride.h, g.kernel.h, g.dilation.h) > g.image.h ||
         reaches(g.conv.w, g.stride.w, g.kernel.w, g.dilation.w) > g.image.w;
}

// Whether windows are more than one value each.
inline bool is_pooled(const Geometry& g) {
  const auto one = [](Pair p) { return p.h == 1 && p.w == 1; };
  return !one(g.pool_size) || !one(g.pool_stride) || g.pool_padding.h > 0 || g.pool_padding.w > 0;
}

// Pooling alone, for the two routing loops: planes are images times channels.
struct PoolGeometry {
  int64_t planes;
  Pair size;
  Pair stride;
  Pair padding;
  Pair conv;
  Pair pooled;
};

struct Range {
  int64_t begin;
  int64_t end;
};

// The q of [0, count) whose source q * stride + offset lies in [0, extent).
inline Range sources_inside(int64_t offset, int64_t stride, int64_t extent, int64_t count) {
  const int64_t begin = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
  const int64_t end = offset >= extent ? 0 : (extent - 1 - offset) / stride + 1;
  return {std::min(begin, count), std::max(std::min(begin, count), std::min(end, count))};
}

}  // namespace convship::kernels::conv2d
