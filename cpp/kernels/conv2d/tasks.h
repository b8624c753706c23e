// What the loops that are compiled once per instruction set are told. Plain
// data: those files see no standard containers and no threads, since code that
// the compiler shares between files would run on CPUs that lack its
// instructions. A is float or double.
#pragma once

#include <cstdint>

#include "kernels/conv2d/geometry.h"

namespace convship::kernels::conv2d {

// Up to this many vectors of output channels are summed side by side, and up
// to this many channels where the lanes hold columns.
constexpr int kMaxVectors = 2;
constexpr int kMaxChannels = 8;

// The convolution's part: where conv row r, column j, tap t finds its input:
//   x[(r - first_row) * row_step + j * column_step + offsets[t]]
template <typename A>
struct Source {
  const A* x;
  int64_t first_row;
  int64_t row_step;
  int64_t column_step;
  const int32_t* offsets;
  int64_t taps;
};

struct Pool {
  Pair conv;      // size of the conv result
  int64_t width;  // of the pooled result
  Pair size;
  Pair stride;
  Pair padding;
  int64_t begin;  // rows of the pooled result to make
  int64_t end;
};

// Where the results of one block of output channels go; the steps serve the
// residual too. Pooled row `begin` is at y.
template <typename A>
struct Target {
  A* y;
  const A* residual;             // or null
  int64_t channels;              // of the block that exist
  int64_t starts[kMaxChannels];  // of each vector of channels, or each channel
  int64_t channel_step;          // within a vector
  int64_t row_step;
  int64_t column_step;
  bool relu;
  // Window index or null, dense NCHW.
  uint8_t* narrow;
  int32_t* wide;
  int64_t index_channel_step;
};

// One block of output channels over some rows; output channels in the lanes.
template <typename A>
struct ChannelsTask {
  Source<A> source;
  Pool pool;
  Target<A> target;
  int vectors;      // of output channels
  const A* weight;  // [taps][vectors][lanes]
  const A* bias;    // [vectors][lanes]
  A* scratch;       // channels_scratch() values, aligned to a vector
};

// Values of scratch that a task with these sizes needs.
inline int64_t channels_scratch(const Pool& pool, int64_t lanes) {
  const int64_t row = pool.conv.w + 2 * pool.size.w + pool.padding.w;
  // One conv row, the window's pooled rows and their indices, one result row.
  return kMaxVectors * lanes * (row + (2 * pool.size.h + 2) * pool.width);
}

}  // namespace convship::kernels::conv2d
