// In which order loops over words sum the words of a weight, whose input has them likewise.
#pragma once

#include <algorithm>

#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/geometry.h"
#include "kernels/conv2d/taps.h"

namespace convship::kernels::conv2d {

// Of every instruction set that has loops over words.
constexpr int kWordLanes = 16;

struct WordOrder {
  int64_t in_word;   // channels
  int64_t chunk;     // channels that are summed with all their taps before the next ones
  int64_t channels;  // with those that only fill up the last word or chunk: their weights are 0

  // Of one output channel.
  int64_t count(Pair kernel) const { return ceil_div(channels, in_word) * kernel.h * kernel.w; }

  // Calls visit(c, i, j) for every word, c its first channel, and kernel row and column.
  template <typename Visit>
  void for_each(Pair kernel, const Visit& visit) const {
    for (int64_t begin = 0; begin < channels; begin += chunk) {
      const int64_t end = std::min(begin + chunk, channels);
      for (int64_t i = 0; i < kernel.h; ++i) {
        for (int64_t j = 0; j < kernel.w; ++j) {
          for (int64_t c = begin; c < end; c += in_word) visit(c, i, j);
        }
      }
    }
  }
};

// Of loops over single words, as for_each_tap's.
inline WordOrder order_of_words(const WeightShape& shape, int64_t in_word) {
  return {in_word, kTapChunk, shape.channels};
}

}  // namespace convship::kernels::conv2d
