// The input as loops over words read it: copied a band of rows at a time, padded
// and rounded. The same to run_channels as ChannelsInput.
#pragma once

#include <vector>

#include "kernels/conv2d/rounding.h"
#include "kernels/conv2d/taps.h"
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

// Calls visit(word, c, i, j) for every tap of words of `in_word` channels, in
// the order of for_each_tap; c is the word's first channel.
template <typename Visit>
void for_each_word(int64_t channels, int64_t in_word, Pair kernel, const Visit& visit) {
  for (int64_t begin = 0; begin < channels; begin += kTapChunk) {
    const int64_t end = std::min(begin + kTapChunk, channels);
    for (int64_t i = 0; i < kernel.h; ++i) {
      for (int64_t j = 0; j < kernel.w; ++j) {
        for (int64_t c = begin; c < end; c += in_word) visit(c / in_word, c, i, j);
      }
    }
  }
}

}  // namespace convship::kernels::conv2d
