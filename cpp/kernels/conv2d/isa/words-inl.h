// The channels loop over words of rounded channels, for one file each: that file
// includes this one and a word's rounding (word-*-inl.h), and gives kWordLoops the word and its
// product (see OneProduct).
#pragma once

#include "kernels/conv2d/isa/rounding-inl.h"

namespace convship::kernels::conv2d {
namespace {

// What a word's weights and one word of the input make of a sum, but for the instruction.
template <class Word>
struct WordProduct : OneProduct<D> {
  static constexpr bool kHasGroups = false;
  static constexpr int kBlockStep = kLanes / Word::kChannels;
  static constexpr int kMostColumns = 16;
};

template <class Word>
void copy_adjoining(const WordsCopy& copy, int32_t* to) {
  const Interleave<float>& t = copy.source;
  constexpr int64_t kWords = kLanes / Word::kChannels;
  for (int64_t c = 0; c < t.channels; c += kLanes, to += t.rows * t.columns * kWords) {
    const int64_t exist = smaller(kLanes, t.channels - c);
    for_rows(
        t,
        [&](int64_t row, const float* from, int64_t begin, int64_t end) {
          from += channel_at(t, c);
          int32_t* words = to + row * t.columns * kWords;
          for (int64_t j = begin; j < end; ++j) {
            const auto word = Word::round(load_lanes(from + j * t.w_step, exist), copy.levels);
            Word::store(word, words + j * kWords, kWords);
          }
        },
        [&](int64_t row, int64_t begin, int64_t end) {
          int32_t* words = to + row * t.columns * kWords;
          for (int64_t j = begin * kWords; j < end * kWords; ++j)
            words[j] = Word::outside(copy.levels);
        });
  }
}

template <class Word>
void copy_planes(const WordsCopy& copy, int32_t* to) {
  const Interleave<float>& t = copy.source;
  for (int64_t c = 0; c < t.channels; c += Word::kChannels, to += t.rows * t.columns) {
    const int64_t exist = smaller(Word::kChannels, t.channels - c);
    for_rows(
        t,
        [&](int64_t row, const float* from, int64_t begin, int64_t end) {
          from += c * t.c_step;
          int32_t* words = to + row * t.columns;
          for (int64_t j = begin; j < end; j += kLanes) {
            const int64_t count = smaller(kLanes, end - j);
            _mm512_mask_storeu_epi32(
                words + j, first_of(count),
                column_words<Word>(t, from + j * t.w_step, exist, count, copy.levels));
          }
        },
        [&](int64_t row, int64_t begin, int64_t end) {
          int32_t* words = to + row * t.columns;
          for (int64_t j = begin; j < end; ++j) words[j] = Word::outside(copy.levels);
        });
  }
}

template <class Word>
void copy_words(const WordsCopy& t, float* to) {
  auto* words = reinterpret_cast<int32_t*>(to);
  t.source.block > 1 || t.source.c_step == 1 ? copy_adjoining<Word>(t, words)
                                             : copy_planes<Word>(t, words);
}

template <class Word, class Product>
constexpr WordLoops kWordLoops = {.channels_in_word = Word::kChannels,
                                  .copy = copy_words<Word>,
                                  .channels = channels_with<Product, float>};

}  // namespace
}  // namespace convship::kernels::conv2d
