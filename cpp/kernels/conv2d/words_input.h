// The input as loops over words read it: copied a band of rows at a time, padded
// and rounded. The same to run_channels as ChannelsInput.
#pragma once

#include <vector>

#include "kernels/conv2d/rounding.h"
#include "kernels/conv2d/view.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {

class WordsInput {
 public:
  static constexpr bool kPadsWithZeros = false;

  WordsInput(const WordLoops& loops,
             const Geometry& geometry,
             const View<const float>& input,
             const Rounding& rounding);

  int64_t row_bytes() const;
  void set_rows(int64_t rows);
  // In words, which are as large as floats.
  int64_t size() const;
  const View<const void>& steps() const { return steps_; }
  std::vector<int32_t> offsets() const;
  const float* band(int64_t n, int64_t group, int64_t y, float* memory) const;

 private:
  const WordLoops& loops_;
  const Geometry& g_;
  const View<const float>& input_;
  const Rounding& rounding_;
  int64_t channels_;
  int64_t words_;  // of a pixel, all channels of a group
  int64_t columns_;
  int64_t rows_ = 0;
  View<const void> steps_{};  // words in place of channels
};

}  // namespace convship::kernels::conv2d
