// Which of attention's heads, windows and positions a tensor's dimensions count through.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "ops/lowering/arrangement.h"

namespace convship::ops::lowering {

// What the dimensions [..., positions, depth] of queries, keys or values count through.
struct Heads {
  int64_t heads = 1;
  int64_t depth = 1;  // channels of one
  plan::Pair window{0, 0};
  bool dilated = false;
  bool of_channels = false;  // these are the positions, and pixels what a product sums over
  Dimensions others;         // of the ones before the positions, what are no channels
};

// whole: the standard dimensions of the value.
std::optional<Heads> heads_of(const Arrangement& x, const Dimensions& whole);

// Of [..., queries, keys], of which a dimension before may be the heads, and one before that the
// windows: [windows, heads, queries, keys], or undefined.
at::Tensor bias_of(const at::Tensor& given, const Dimensions& queries, const Dimensions& keys);

// Of [..., 1, 1], of which a dimension before is the heads: [heads], or undefined.
at::Tensor factors_of(const at::Tensor& given, const Dimensions& queries);

}  // namespace convship::ops::lowering
