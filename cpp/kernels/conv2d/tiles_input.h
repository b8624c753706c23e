// The input as loops over tiles read it: copied a band of rows at a time, padded and rounded.
// The same to run_channels as ChannelsInput.
#pragma once

#include <vector>

#include "kernels/conv2d/rounding.h"
#include "kernels/conv2d/view.h"
#include "kernels/conv2d/word_order.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {

template <typename T>
class TilesInput {
 public:
  static constexpr bool kPadsWithZeros = false;

  TilesInput(const TileLoops& loops,
             const WordOrder& order,
             const Geometry& geometry,
             const View<const T>& input,
             const Rounding& rounding);

  int64_t row_bytes() const;
  void set_rows(int64_t rows);
  // In words, which are as large as floats.
  int64_t size() const;
  const View<const void>& steps() const { return steps_; }
  std::vector<int32_t> offsets() const;
  // Words of the input that adjoin, and of `offsets` belong together.
  int64_t run_words() const { return run_words_; }
  const float* band(int64_t n, int64_t group, int64_t y, float* memory) const;

 private:
  const TileLoops& loops_;
  const WordOrder& order_;
  const Geometry& g_;
  const View<const T>& input_;
  const Rounding& rounding_;
  int64_t channels_;
  int64_t words_;  // of a pixel in a chunk
  int64_t columns_;
  int64_t run_words_;
  int64_t rows_ = 0;
  View<const void> steps_{};  // words in place of channels
};

}  // namespace convship::kernels::conv2d
