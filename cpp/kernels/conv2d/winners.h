// Gradients of conv_pool2d in one go. Of the conv result only the winner of
// each pooling window has a gradient, and with ReLU only where the result is
// positive: an eighth of the multiplications of a convolution's gradient for
// 2x2 windows. What is left is short: a winner meets kernel.h runs of
// kernel.w * c_in values, which adjoin where channels do.
#pragma once

#include "kernels/conv2d/view.h"
#include "kernels/parallel.h"

namespace convship::kernels::conv2d {

template <typename T>
struct WinnersCall {
  const Geometry& geometry;
  View<const T> grad;    // of the pooled result
  View<const T> output;  // what conv_pool2d gave, null data without ReLU
  const uint8_t* index;  // dense NCHW, as conv_pool2d wrote it
  View<const T> input;
  const T* weight;     // [c_out, c_in, kernel] dense
  View<T> grad_input;  // null data: not wanted
  T* grad_weight;      // null: not wanted
  T* grad_bias;        // null: not wanted
};

// Whether winners_backward serves this geometry with the active instruction
// set, and is expected to be faster than the gradient of the whole conv result.
template <typename T>
bool has_winners_backward(const Geometry& geometry);

// The sums have the same order for any number of threads. False when an index
// points outside of its window or of the conv result.
template <typename T>
bool winners_backward(const WinnersCall<T>& call, const Parallel& parallel);

}  // namespace convship::kernels::conv2d
