// Where the values of a batch of images lie in memory.
#pragma once

#include <cstdint>

#include "kernels/conv2d/geometry.h"

namespace convship::kernels::conv2d {

// Channels of the blocked layout that lie side by side.
constexpr int64_t kChannelBlock = 16;

// Value (n, c, y, x) is at
//   data[n * n_step + c / block * c_step + c % block + y * h_step + x * w_step].
// Steps are in elements. block is 1 (any strided tensor; a broadcast dimension
// has step 0) or kChannelBlock.
template <typename T>
struct View {
  T* data;
  int64_t n_step;
  int64_t c_step;
  int64_t h_step;
  int64_t w_step;
  int64_t block = 1;

  int64_t channel(int64_t c) const { return c / block * c_step + c % block; }
  T* at(int64_t n, int64_t c, int64_t y, int64_t x) const {
    return data + n * n_step + channel(c) + y * h_step + x * w_step;
  }
  // Whether neighbouring channels (of one block) are neighbours in memory.
  bool channels_adjoin() const { return block > 1 || c_step == 1; }
};

template <typename T>
View<const T> read_only(const View<T>& view) {
  return {view.data, view.n_step, view.c_step, view.h_step, view.w_step, view.block};
}

template <typename T>
View<T> nchw(T* data, int64_t channels, Pair size) {
  return {data, channels * size.h * size.w, size.h * size.w, size.w, 1};
}

template <typename T>
View<T> nhwc(T* data, int64_t channels, Pair size) {
  return {data, channels * size.h * size.w, 1, channels * size.w, channels};
}

// [N, ceil(C / 16), H, W, 16]; what a last block has too many is neither read
// nor written.
template <typename T>
View<T> blocked(T* data, int64_t channels, Pair size) {
  const int64_t plane = size.h * size.w * kChannelBlock;
  const int64_t blocks = (channels + kChannelBlock - 1) / kChannelBlock;
  return {data, blocks * plane, plane, size.w * kChannelBlock, kChannelBlock, kChannelBlock};
}

}  // namespace convship::kernels::conv2d
