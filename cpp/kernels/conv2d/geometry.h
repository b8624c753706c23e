// Sizes of one conv_pool2d call. N images of C_in x H x W become
// N x C_out x conv.h x conv.w, which pooling turns into pooled.h x pooled.w.
#pragma once

#include <algorithm>
#include <cstdint>

namespace convship::kernels::conv2d {

// As torch.nn names them. Those from relu6 on follow the pooling, and are for
// calls without an index.
enum class Activation {
  none,
  relu,
  relu6,
  sigmoid,
  hardsigmoid,
  silu,
  hardswish,
  gelu,
  gelu_tanh,  // gelu's approximation by a tanh
};
constexpr Activation kLastActivation = Activation::gelu_tanh;

struct Pair {
  int64_t h;
  int64_t w;
};

// What of a geometry belongs to the weights alone.
struct WeightShape {
  int64_t c_out;
  int64_t channels;  // of the input, in one group
  Pair kernel;
  int64_t groups;
};

// All sizes are positive, except that n may be 0; the caller has checked that
// no product of them overflows and that conv and pooled follow from the rest.
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
