// The loops that can serve a convolution, and the one place that chooses.
#pragma once

#include "kernels/conv2d/geometry.h"
#include "kernels/conv2d/rounding.h"

namespace convship::kernels::conv2d {

// README.md of cpp/kernels tells what each of them does.
enum class Family {
  plain,
  channels,
  columns,
  depthwise,
  winograd_2x2_3x3,
  winograd_4x4_3x3,
  winograd_2x2_5x5,
  groups,
  per_tap,
  words_bfloat16,
  words_int8,
  tiles_bfloat16,
  tiles_int8,
};

constexpr int kFamilies = static_cast<int>(Family::tiles_int8) + 1;

const char* family_name(Family family);

// Input channels per group from which on a family keeps the error rule of
// docs/accuracy.md; scripts/accuracy measures it. 1 for direct sums.
int64_t fewest_channels(Family family);

// Whether the layer has 1, 2, 4, 8 or 16 channels a group, at most a vector and as
// many out as in, and no pooling. Such layers are summed directly in every layout.
bool has_small_groups(const Geometry& geometry, int lanes);

struct Choice {
  int lanes;        // of a vector; 0: this instruction set has none of our loops
  bool may_round;   // accuracy is fast: Winograd is allowed, where it is exact enough
  bool may_expand;  // zeros may meet every weight: all are finite
  // Output channels lie side by side in memory.
  bool channels_adjoin = false;
  bool groups = false;     // that loop serves small groups in this layout
  bool depthwise = false;  // that loop serves the input's type
  bool per_tap = false;    // results can hold sums, and no index is asked for
  // What loops over words, and over tiles of them, there are for this call's numbers.
  Rounding::Kind words = Rounding::Kind::none;
  Rounding::Kind tiles = Rounding::Kind::none;
};

// Whether sums are transformed, or added per tap, depends on weights, image size
// and instruction set only; which other direct loop it is, on the output's layout
// too, for they all sum in one order. So neither the batch nor the threads,
// strides or alignment can change an image's bits.
Family choose(const Geometry& geometry, const Choice& choice);

}  // namespace convship::kernels::conv2d
