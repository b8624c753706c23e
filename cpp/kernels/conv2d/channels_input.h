// The input as the channels loop reads it: where it is, or copied with its
// padding, a band of rows at a time.
#pragma once

#include <vector>

#include "kernels/conv2d/pack.h"
#include "kernels/conv2d/strip.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {

template <typename T>
class ChannelsInput {
 public:
  using A = AccumulatorOf<T>;
  static constexpr bool kPadsWithZeros = true;

  ChannelsInput(const Loops<A>& loops, const Geometry& geometry, const View<const T>& input);

  // Bytes to copy for one row of input; 0 where nothing is copied.
  int64_t row_bytes() const;

  // From here on for bands of at most so many rows of input.
  void set_rows(int64_t rows);

  // Values of memory that a band needs.
  int64_t size() const { return size_; }
  // Steps from value to value, and from the first tap of a kernel to each.
  const View<const void>& steps() const { return steps_; }
  std::vector<int32_t> offsets() const;

  // Rows [y, y + rows) of a group's channels, padding counted; copies them to
  // `memory` where they have to be.
  const A* band(int64_t n, int64_t group, int64_t y, A* memory) const;

 private:
  enum class Way {
    in_place,
    interleave,  // planes to vectors of channels
    copy,        // any layout, as it is
  };
  Way choose() const;
  View<const void> steps_of(int64_t rows) const;

  const Loops<A>& loops_;
  const Geometry& g_;
  const View<const T>& input_;
  int64_t channels_;
  int64_t columns_;
  Way way_;
  Strip strip_;  // where way_ is copy
  int64_t rows_ = 0;
  int64_t size_ = 0;
  View<const void> steps_{};
};

}  // namespace convship::kernels::conv2d
