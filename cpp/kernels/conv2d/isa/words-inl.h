// The channels loop over words of rounded channels, for one file each: that file
// includes this one and defines the struct `Word`, of its instruction set:
//
//   kChannels                    in a word
//   Product                      see OneProduct
//   store(values, task, to)      rounds 16 channels to 16 / kChannels words
//   outside(task)                the word of padding
//   join(planes, task)           of kChannels vectors, each one channel of 16 columns:
//                                the columns' words
#pragma once

#include <immintrin.h>

#include "kernels/conv2d/isa/common-inl.h"

namespace convship::kernels::conv2d {
namespace {

using D = hn::ScalableTag<float>;
constexpr int64_t kLanes = 16;
static_assert(hn::MaxLanes(D()) == kLanes);

HWY_INLINE __m512 load_channels(const float* from, int64_t exist) {
  if (exist >= kLanes) return _mm512_loadu_ps(from);
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << exist) - 1), from);
}

// Rows of the part, and in each the columns [begin, end) that are inside.
template <class Visit, class Clear>
HWY_INLINE void for_rows(const Interleave<float>& t, const Visit& visit, const Clear& clear) {
  const int64_t begin = smaller(larger(-t.left, 0), t.columns);
  const int64_t end = larger(begin, smaller(t.image.w - t.left, t.columns));
  for (int64_t row = 0; row < t.rows; ++row) {
    const int64_t y = t.top + row;
    const bool inside = y >= 0 && y < t.image.h && begin < end;
    clear(row, 0, inside ? begin : t.columns);
    if (!inside) continue;
    clear(row, end, t.columns);
    visit(row, t.x + y * t.h_step + t.left * t.w_step, begin, end);
  }
}

template <class Word>
void copy_adjoining(const WordsCopy& copy, int32_t* to) {
  const Interleave<float>& t = copy.source;
  constexpr int64_t kWords = kLanes / Word::kChannels;
  for (int64_t c = 0; c < t.channels; c += kLanes, to += t.rows * t.columns * kWords) {
    const int64_t exist = smaller(kLanes, t.channels - c);
    for_rows(
        t,
        [&](int64_t row, const float* from, int64_t begin, int64_t end) {
          from += c / t.block * t.c_step + c % t.block;
          int32_t* words = to + row * t.columns * kWords;
          for (int64_t j = begin; j < end; ++j) {
            Word::store(load_channels(from + j * t.w_step, exist), copy, words + j * kWords);
          }
        },
        [&](int64_t row, int64_t begin, int64_t end) {
          int32_t* words = to + row * t.columns * kWords;
          for (int64_t j = begin * kWords; j < end * kWords; ++j) words[j] = Word::outside(copy);
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
            const auto mask = static_cast<__mmask16>((1u << count) - 1);
            __m512 planes[Word::kChannels];
            for (int64_t k = 0; k < Word::kChannels; ++k) {
              const float* plane = from + k * t.c_step + j * t.w_step;
              if (k >= exist) {
                planes[k] = _mm512_setzero_ps();
              } else if (t.w_step == 1) {
                planes[k] = _mm512_maskz_loadu_ps(mask, plane);
              } else {
                alignas(64) float lanes[kLanes] = {};
                for (int64_t i = 0; i < count; ++i) lanes[i] = plane[i * t.w_step];
                planes[k] = _mm512_load_ps(lanes);
              }
            }
            _mm512_mask_storeu_epi32(words + j, mask, Word::join(planes, copy));
          }
        },
        [&](int64_t row, int64_t begin, int64_t end) {
          int32_t* words = to + row * t.columns;
          for (int64_t j = begin; j < end; ++j) words[j] = Word::outside(copy);
        });
  }
}

template <class Word>
void copy_words(const WordsCopy& t, float* to) {
  auto* words = reinterpret_cast<int32_t*>(to);
  t.source.block > 1 || t.source.c_step == 1 ? copy_adjoining<Word>(t, words)
                                             : copy_planes<Word>(t, words);
}

template <class Word>
constexpr WordLoops kWordLoops = {.channels_in_word = Word::kChannels,
                                  .copy = copy_words<Word>,
                                  .channels = channels_with<typename Word::Product, float>};

}  // namespace
}  // namespace convship::kernels::conv2d
