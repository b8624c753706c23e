// Which taps of a conv row meet the image. Those that meet nothing but padding
// add zeros, and need neither be summed nor have their weights read: around an
// image of 1x1 that is eight in nine of a 3x3 kernel.
#pragma once

#include <vector>

#include "kernels/conv2d/geometry.h"
#include "kernels/conv2d/tasks.h"

namespace convship::kernels::conv2d {

class TapRuns {
 public:
  // All taps in one run for every conv row.
  explicit TapRuns(int64_t taps);
  // What is left of `channels` channels' taps, in the order of for_each_tap; all
  // where too many rows are near an edge.
  TapRuns(const Geometry& g, int64_t channels);

  // The most taps that a conv row sums.
  int64_t most() const { return most_; }
  // From here on steps of `at_once` taps of those that there are.
  void cut(int64_t at_once);

  // Points into this object.
  RowTaps rows() const;

 private:
  int64_t most_;
  float share_ = 1;
  // As in RowTaps.
  int64_t upper_ = 0;
  int64_t lower_;
  int64_t steps_ = 1;
  std::vector<TapRun> runs_;
  std::vector<int32_t> first_;
};

}  // namespace convship::kernels::conv2d
