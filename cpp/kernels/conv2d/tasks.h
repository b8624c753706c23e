// What the loops that are compiled once per instruction set are told. Plain
// data: those files see no standard containers and no threads, since code that
// the compiler shares between files would run on CPUs that lack its
// instructions. A is float or double. Functions here are static for the
// same reason: each of those files keeps its own.
#pragma once

#include <cstdint>

#include "kernels/bfloat16.h"
#include "kernels/conv2d/geometry.h"
#include "kernels/conv2d/levels.h"

namespace convship::kernels::conv2d {

// Up to this many vectors of output channels are summed side by side, and up
// to this many channels where the lanes hold columns.
constexpr int kMaxVectors = 4;
constexpr int kMaxChannels = 8;
// Larger windows go to the plain loop.
constexpr int kMostWindowRows = 64;

// Taps that follow each other.
struct TapRun {
  int32_t begin;
  int32_t end;
};

// The taps that conv rows sum (tap_runs.h), some at a time: step s of a row's
// are the runs from first[kind * steps + s] up to the next entry's. Rows before
// `upper` and from `lower` on are each of a kind of their own, those between sum
// all that any row does.
struct RowTaps {
  const TapRun* runs;
  const int32_t* first;
  int64_t steps;
  int64_t upper;
  int64_t lower;
  float share;  // of all those, that a row sums on average
};

struct TapRunRange {
  const TapRun* begin;
  const TapRun* end;
};

static inline TapRunRange runs_of_kind(const RowTaps& t, int64_t kind, int64_t step) {
  const int32_t* first = t.first + kind * t.steps + step;
  return {t.runs + first[0], t.runs + first[1]};
}

static inline TapRunRange runs_of_row(const RowTaps& t, int64_t row, int64_t step) {
  const int64_t kind = row < t.upper ? row : row < t.lower ? t.upper : t.upper + 1 + row - t.lower;
  return runs_of_kind(t, kind, step);
}

// All that any row sums.
static inline TapRunRange all_runs(const RowTaps& t, int64_t step) {
  return runs_of_kind(t, t.upper, step);
}

// Taps whose input may lie side by side, for every such group of a weight. A loop over
// whole groups takes a quarter fewer instructions, which tells where two threads share
// a core's.
constexpr int kTapGroup = 8;

// The convolution's part: where conv row r, column j, tap t finds its input:
//   x[(r - first_row) * row_step + j * column_step + offsets[t]]
template <typename A>
struct Source {
  const A* x;
  int64_t first_row;
  int64_t row_step;
  int64_t column_step;
  const int32_t* offsets;
  int64_t taps;  // of the weights
  bool grouped;  // offsets[t + i] is offsets[t] + i, for i < kTapGroup, in every group
  // How many taps ahead the input is fetched, where no other column has read it before;
  // else 0. There are as many offsets beyond the last tap.
  int64_t ahead;
  RowTaps row_taps;
};

struct Pool {
  Pair conv;      // size of the conv result
  int64_t width;  // of the pooled result
  Pair size;
  Pair stride;
  Pair padding;
  int64_t begin;  // rows of the pooled result to make
  int64_t end;
  int64_t done = 0;  // conv rows before it have been row-pooled, and their ring is kept
};

// With all rows of the pooled result.
static inline Pool pool_of(const Geometry& g) {
  return {g.conv, g.pooled.w, g.pool_size, g.pool_stride, g.pool_padding, 0, g.pooled.h};
}

// Whether windows are one value each.
static inline bool pools_nothing(const Pool& p) {
  return p.size.h == 1 && p.size.w == 1 && p.stride.h == 1 && p.stride.w == 1 && p.padding.h == 0 &&
         p.padding.w == 0;
}

// The conv rows that windows look at end here, and so do the columns.
static inline int64_t conv_rows_end(const Pool& p) {
  const int64_t end = (p.end - 1) * p.stride.h - p.padding.h + p.size.h;
  return end < p.conv.h ? end : p.conv.h;
}
static inline int64_t conv_columns_end(const Pool& p) {
  const int64_t end = (p.width - 1) * p.stride.w - p.padding.w + p.size.w;
  return end < p.conv.w ? end : p.conv.w;
}

// Windows of 2x2 that neither overlap nor leave the conv result: their maxima
// can be taken in registers.
static inline bool pools_pairs(const Pool& p) {
  return p.size.h == 2 && p.size.w == 2 && p.stride.h == 2 && p.stride.w == 2 && p.padding.h == 0 &&
         p.padding.w == 0 && 2 * p.width <= p.conv.w && 2 * p.end <= p.conv.h;
}

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
  Activation activation;
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
  int vectors;         // of output channels; 4: of two blocks, each with weights of its own
  int64_t run_words;   // words of the input that adjoin, for loops over tiles; else unused
  int64_t block_step;  // from the weights of a block to the next one's
  // Taps of a step, which is summed for all conv rows before the next one: all,
  // unless their weights would not stay in the cache meanwhile.
  int64_t taps_at_once;
  bool prefetch;    // weights come from far away, and all are needed
  const A* weight;  // [taps][vectors][lanes], of each block
  const A* bias;    // [vectors][lanes]
  const A* scale;   // [vectors][lanes]: of sums of integers; else unused
  A* scratch;       // channels_scratch() values, aligned to a vector
  A* ring;          // pooling_ring() values, aligned likewise
};

// Values of the ring of row-pooled conv rows under a window, and their indices; `ahead`: further
// rows that may be there before windows need them.
static inline int64_t pooling_ring(const Pool& pool, int64_t block, int64_t ahead = 0) {
  return 2 * (pool.size.h + ahead) * pool.width * block;
}

// Values of one result row and its indices, or of a tile's sums.
static inline int64_t pooling_scratch(const Pool& pool, int64_t block) {
  constexpr int64_t kTile = 8;  // of kMaxVectors; 32 registers at most
  return 2 * (pool.width < kTile ? kTile : pool.width) * block;
}

// Values of a conv row of `columns` columns, with its margins.
static inline int64_t row_scratch(const Pool& pool, int64_t columns, int64_t block) {
  return (pool.padding.w + columns + pool.size.w) * block;
}

// Conv rows whose sums wait in memory for further taps: those of a band where
// it takes several steps to sum all taps, else the one at work.
static inline int64_t waiting_rows(const Pool& pool, bool in_steps) {
  if (!in_steps) return 1;
  const int64_t rows = (pool.end - pool.begin - 1) * pool.stride.h + pool.size.h;
  return rows < pool.conv.h ? rows : pool.conv.h;
}

static inline int64_t channels_scratch(const Pool& pool, bool in_steps, int64_t lanes) {
  const int64_t block = kMaxVectors * lanes;
  return waiting_rows(pool, in_steps) * row_scratch(pool, pool.conv.w, block) +
         pooling_scratch(pool, block);
}

// Conv rows that loops over tiles sum before they pool them: as many as stay in the first-level
// cache, if any do.
static inline int64_t tile_rows(const Pool& pool, int64_t block) {
  constexpr int64_t kBytes = 32 << 10;
  const int64_t row = row_scratch(pool, pool.conv.w, block) * static_cast<int64_t>(sizeof(float));
  const int64_t rows = kBytes / row < 1 ? 1 : kBytes / row;
  return rows < pool.conv.h ? rows : pool.conv.h;
}

static inline int64_t tiles_scratch(const Pool& pool, int64_t lanes) {
  const int64_t block = kMaxVectors * lanes;
  const int64_t row = row_scratch(pool, pool.conv.w, block);
  return tile_rows(pool, lanes) * row + pooling_scratch(pool, block);
}

// Columns in the lanes. Column j of a strip row is value j / phases of phase
// j % phases, so that neighbouring conv columns read neighbours.
template <typename A>
struct ColumnsSplit {
  const A* from;  // row 0, column 0, channel 0
  int64_t c_step;
  int64_t h_step;
  int64_t w_step;
  Pair image;
  int64_t channels;
  int64_t top;  // of the strip, in the image; may be outside
  int64_t rows;
  int64_t left;  // columns of zeros before the image
  int64_t phases;
  int64_t phase_size;
  int64_t slack;  // zeros behind all rows; at least a vector
  A* to;          // [channel][row][phase][phase_size]
};

// One block of output channels over some rows; columns in the lanes.
template <typename A>
struct ColumnsTask {
  const A* x;
  int64_t first_row;       // conv row at x
  int64_t row_step;        // from one conv row to the next
  const int32_t* offsets;  // [taps]
  int64_t taps;
  // As many conv rows are summed as if they were one, with what lies between them; 0:
  // each alone.
  int64_t joined_rows;
  Pool pool;
  Target<A> target;
  const A* weight;  // [taps][target.channels]
  const A* bias;
  A* scratch;  // columns_scratch() values, aligned to a vector
  A* ring;     // columns_ring() values, aligned likewise
};

// Vectors of columns beside each other: with few channels, enough sums to hide the
// latency of an addition.
static constexpr int columns_wide(int64_t channels) {
  return channels == 1 ? 8 : channels <= 3 ? static_cast<int>(12 / channels) : 4;
}

// Layout of a ColumnsTask's scratch, in values of one channel.
struct ColumnsScratch {
  int64_t joined_size;  // of joined conv rows
  int64_t row_size;     // of a conv row with its margins
  int64_t right;        // of its right margin, which windows reach into
  int64_t pooled_size;  // of a row of maxima
  int64_t size;         // of all channels
};

static inline ColumnsScratch columns_scratch(
    const Pool& pool, int64_t joined_rows, int64_t row_step, int64_t channels, int64_t lanes) {
  const auto vectors = [&](int64_t count) { return (count + lanes - 1) / lanes * lanes; };
  const auto most = [](int64_t a, int64_t b) { return a < b ? b : a; };
  ColumnsScratch s{};
  const int64_t windows =
      most(vectors(pool.width) * pool.stride.w + pool.size.w, vectors(pool.conv.w));
  s.joined_size = joined_rows > 0 ? vectors((joined_rows - 1) * row_step + windows) : 0;
  s.pooled_size = vectors(pool.width);
  const int64_t end = pool.padding.w + pool.conv.w;
  s.right = most((pool.width - 1) * pool.stride.w + pool.size.w - end, 0);
  // Whole vectors are written, and read of every column of the windows.
  s.row_size = vectors(pool.padding.w + windows + s.right + lanes);
  s.size = channels * (s.joined_size + s.row_size);
  return s;
}

// Values of the ring of row-pooled conv rows under a window, and their indices.
static inline int64_t columns_ring(const Pool& pool, int64_t channels, int64_t lanes) {
  return 2 * pool.size.h * channels * ((pool.width + lanes - 1) / lanes * lanes);
}

// Part of an image, zeros around it, as [channel / lanes][row][column][lanes].
template <typename A>
struct Interleave {
  const A* x;  // row 0, column 0 of the image, in the block of channels where the group begins
  int64_t c_step;
  int64_t h_step;
  int64_t w_step;
  int64_t block;
  int64_t first;  // channel of that block, which is the group's first one
  Pair image;
  int64_t channels;
  int64_t top;  // of the part, in the image; may be outside
  int64_t left;
  int64_t rows;
  int64_t columns;
};

// Where the group's channel c is, from x on.
template <typename A>
static inline int64_t channel_at(const Interleave<A>& t, int64_t c) {
  return (t.first + c) / t.block * t.c_step + (t.first + c) % t.block;
}

// What multiplies several neighbouring channels at once: two of bfloat16, or
// four of 8 bits. They make a word of 32 bits, which stands where a
// ChannelsTask<float> has a value of the input; likewise in its weights.
//
// Copies part of an image and rounds it. Where channels adjoin, the copy is
// [channel / 16][row][column][words of 16 channels], else [word][row][column].
struct WordsCopy {
  Interleave<float> source;
  Levels levels;
};

// The same for loops over tiles: the copy is [chunk][row][column][words], a chunk the next
// words * (channels of a word) channels. Words of channels that do not exist hold zeros.
template <typename T>
struct TilesCopy {
  Interleave<T> source;
  Levels levels;
  int64_t words;  // of a pixel in a chunk, at most 16
};

// Values that become bfloat16: `pieces` of `count` values that adjoin.
template <typename A>
struct Narrow {
  const A* from;
  int64_t from_step;  // from piece to piece
  int64_t pieces;
  int64_t count;
  BFloat16* to;
  int64_t to_step;
};

// Winograd. Tiles of a strip are numbered row by row; a point is one of the
// tile's reach * reach values after the transform.

// Transforms the weights of one block of output channels.
template <typename A>
struct WinogradWeights {
  int vectors;      // of output channels in a block: 2 or 3
  const A* taps;    // [channel][tap][vectors * lanes]
  const double* g;  // [reach][taps of a row]
  int64_t channels;
  A* u;  // [point][channel][vectors * lanes]
  int64_t point_step;
  A* magnitudes;  // [point][vectors * lanes]: sums of |u| over channels
};

// Transforms some input channels of a strip.
template <typename A>
struct WinogradInput {
  Interleave<A> source;  // its rows and columns follow from the tiles
  Pair tiles;
  int64_t begin;  // channels, multiples of the lanes
  int64_t end;
  A* v;  // [point][channel / lanes][tile][lanes]
  int64_t point_step;
  int64_t channel_step;  // from one channel to the next: tiles, of other images too
  A* scratch;            // winograd_rows() values
};

// v times u, for some points and some blocks of output channels.
template <typename A>
struct WinogradProduct {
  int vectors;  // of output channels in a block: 2 or 3
  const A* v;
  int64_t v_point_step;
  int64_t tiles;
  int64_t channels;  // padded to the lanes
  const A* u;        // [point][block][channel][vectors * lanes]
  int64_t u_point_step;
  A* m;  // [block][point][tile][vectors * lanes]
  int64_t m_point_step;
  int64_t blocks;
  int64_t points;
  bool prefetch;  // u comes from far away
};

// Transforms one block of output channels back, then pools and writes it.
template <typename A>
struct WinogradOutput {
  int vectors;  // of output channels in a block: 2 or 3
  const A* m;   // [point][tile][vectors * lanes]
  int64_t m_point_step;
  Pair tiles;
  int64_t first_row;  // conv row of the strip's first tile
  const A* bias;      // [vectors * lanes]
  Pool pool;
  Target<A> target;
  A* scratch;
};

// Gradients from the winners of one output channel in one image. A kernel row
// is a run of columns and channels that adjoin, here and in the image.
constexpr int kMostWinnerVectors = 4;

template <typename A>
struct WinnersTask {
  const int32_t* places;  // of each winner's first tap in the image
  const A* grads;
  int64_t count;
  A* image;  // [rows][columns][channels], padding included
  int64_t image_step;
  A* weight;  // [rows][vectors][lanes]
  int64_t weight_step;
  int64_t rows;
  int vectors;  // that a run takes, at most kMostWinnerVectors
};

}  // namespace convship::kernels::conv2d
