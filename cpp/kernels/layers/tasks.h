// What the loops of layers without a kernel of their own get: plain structs.
// Images are [N, ceil(C / 16), H, W, 16]: a pixel is 16 neighbouring channels.
#pragma once

#include <cstdint>

#include "kernels/bfloat16.h"
#include "kernels/conv2d/geometry.h"

namespace convship::kernels {

// Rows (or columns) that a pooled row (or column) looks at, and by how many an
// average divides.
struct Window {
  int64_t begin;
  int64_t end;
  int64_t count;
};

// One block of 16 channels of one image, rows [begin, end) of the result.
struct PoolTask {
  const float* x;
  int64_t x_row;  // step from row to row
  float* y;
  int64_t y_row;
  const Window* rows;
  const Window* columns;
  int64_t begin;
  int64_t end;
  int64_t width;
  bool average;  // else the maximum
  conv2d::Activation activation;
};

// y = activation(a * scale + shift + b), of which any part may be missing, or a, below
// zero times slope, for `pixels` pixels.
struct MapTask {
  const float* a;
  const float* b;      // or null
  const float* scale;  // [16] or null
  const float* shift;  // as scale
  const float* slope;  // [16] or null
  float* y;
  int64_t pixels;
  conv2d::Activation activation;
};

// y = activation(a + b), or another operator's, for `pixels` pixels.
struct CombineTask {
  enum class How { add, subtract, multiply, divide, maximum, minimum };
  struct Operand {
    const float* data;
    int64_t step;      // from pixel to pixel, 0 where one serves all of them
    bool one_channel;  // which serves all channels
  };
  How how;
  Operand a;
  Operand b;
  float* y;
  int64_t pixels;
  conv2d::Activation activation;
};

// Each of `pixels` pixels by itself: the sum of its channels, divided, or their maximum, as
// an image of one channel.
struct AcrossTask {
  const float* x;
  int64_t x_block;  // step from one block of channels to the next
  float* y;
  int64_t channels;
  int64_t pixels;
  bool maximum;
  float divisor;  // of sums
};

// Each of `pixels` pixels by itself: exp(x) / sum of exp(x) over its channels, or the
// logarithm of that.
struct SoftmaxTask {
  const float* x;
  int64_t x_block;
  float* y;
  int64_t y_block;
  int64_t channels;
  int64_t pixels;
  bool logarithm;
};

// Each of `pixels` pixels by itself: y = (x - mean) / sqrt(variance + epsilon) * scale +
// shift, with mean and (biased) variance of its channels.
struct NormalizeTask {
  const float* x;
  int64_t x_block;     // step from one block of channels to the next
  const float* scale;  // [channels], to whole blocks
  const float* shift;  // as scale
  float* y;
  int64_t y_block;
  int64_t channels;
  int64_t pixels;
  float epsilon;
};

// Of each of a block's 16 channels, over `pixels` pixels: the sum, and the sum of squared
// distances from its mean.
struct MomentsTask {
  const float* x;
  int64_t pixels;
  float* sum;      // [16]
  float* squares;  // [16]
};

// Between which two rows (or columns) a row of the result lies: first * (1 - share) +
// second * share.
struct Between {
  int64_t first;
  int64_t second;
  float share;
};

// One block of 16 channels of one image, rows [begin, end) of the result.
struct InterpolateTask {
  const float* x;
  int64_t x_row;  // step from row to row
  float* y;
  int64_t y_row;
  const Between* rows;
  const Between* columns;
  int64_t begin;
  int64_t end;
  int64_t width;
};

// Rows [begin, end) of y[n] = activation(weight * x[n] + bias).
struct LinearTask {
  const float* x;
  int64_t x_step;
  const float* weight;  // [rows, features]
  // In place of weight, if not null; a row of integers has a factor.
  const BFloat16* weight_bfloat16;
  const int8_t* weight_int8;
  const float* scale;  // [rows]
  const float* bias;   // or null
  float* y;
  int64_t y_step;
  int64_t features;
  int64_t images;
  int64_t begin;
  int64_t end;
  conv2d::Activation activation;
};

// One vector of channels of one image: groups of `width` channels, a power
// of two and at most the vector, of which each output sees those of its own group.
struct GroupsTask {
  int64_t width;
  const float* x;  // the first pixel of the image
  int64_t x_row;
  int64_t x_column;
  conv2d::Pair image;
  conv2d::Pair corner;  // of the image, where the first tap of the first result is
  // Room for a copy of the rows and columns under the result, a vector each; or null, where
  // the image is read in place: not if a window along a row sees nothing of it.
  float* strip;
  const float* residual;  // steps as y; or null
  float* y;
  int64_t y_row;
  int64_t y_column;
  conv2d::Pair kernel;
  conv2d::Pair stride;
  conv2d::Pair dilation;
  conv2d::Pair size;    // of the result
  int64_t channels;     // of the vector that exist
  const float* weight;  // [kernel.h * kernel.w][width][lanes]
  const float* bias;    // [lanes]
  conv2d::Activation activation;
};

// Of an operand of attention, the channels of one head.
template <typename T>
struct HeadView {
  T* data;        // at the first position, the block of 16 that has the head's first channel
  int64_t block;  // step from one block of channels to the next
  int64_t lane;   // of that block, the head's first channel
};

// Rows [begin, end) of softmax(scale * q k^T + bias) v, of one head of one image or window.
struct AttendTask {
  static constexpr int64_t kQueries = 24;    // that are taken together
  static constexpr int64_t kMostPanel = 32;  // columns of packed matrices are multiples of it

  HeadView<const float> q;
  HeadView<const float> k;
  HeadView<const float> v;
  HeadView<float> y;
  const int64_t* places;  // of each position, where its pixel lies from the first one on
  int64_t begin;
  int64_t end;
  int64_t keys;
  int64_t depth;        // channels of a head of q and of k
  int64_t value_depth;  // of v and of y
  int64_t padding;      // channels of y behind this head's, of no head, which become 0
  float scale;
  const float* bias;      // [queries][keys], or null
  const float* bias_end;  // of what may be read
  // Room; columns to whole panels.
  float* packed_keys;     // [depth][keys]
  float* packed_values;   // [keys][value_depth]
  float* scores;          // [kQueries][keys and 16 more]
  float* packed_queries;  // [kQueries][depth]
  float* results;         // [kQueries][value_depth]
};

struct LayerLoops {
  void (*pool)(const PoolTask&);
  void (*map)(const MapTask&);
  void (*combine)(const CombineTask&);
  void (*across)(const AcrossTask&);
  void (*softmax)(const SoftmaxTask&);
  void (*normalize)(const NormalizeTask&);
  void (*moments)(const MomentsTask&);
  void (*interpolate)(const InterpolateTask&);
  void (*linear)(const LinearTask&);
  void (*groups)(const GroupsTask&);
  void (*attend)(const AttendTask&);
};

}  // namespace convship::kernels
