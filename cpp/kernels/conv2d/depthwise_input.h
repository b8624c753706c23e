// The input as the loop of depthwise layers reads it: vectors of channels, where they are or
// copied with their padding, a band of rows at a time. As ChannelsInput.
#pragma once

#include <vector>

#include "kernels/conv2d/view.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {

template <typename T>
class DepthwiseInput {
 public:
  static constexpr bool kPadsWithZeros = true;

  // The geometry's groups are vectors of channels.
  DepthwiseInput(const Loops<T>& loops, const Geometry& geometry, const View<const T>& input);

  int64_t row_bytes() const;
  void set_rows(int64_t rows);
  int64_t size() const;
  const View<const void>& steps() const { return steps_; }
  std::vector<int32_t> offsets() const;
  const T* band(int64_t n, int64_t vector, int64_t y, T* memory) const;

 private:
  bool is_in_place() const;

  const Loops<T>& loops_;
  const Geometry& g_;
  const View<const T>& input_;
  int64_t columns_;
  bool in_place_;
  int64_t rows_ = 0;
  View<const void> steps_{};
};

}  // namespace convship::kernels::conv2d
