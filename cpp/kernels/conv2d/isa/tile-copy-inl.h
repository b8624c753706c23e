// The copy of the input that loops over tiles read: see TilesCopy.
#pragma once

#include "kernels/conv2d/isa/rounding-inl.h"

namespace convship::kernels::conv2d {
namespace {

// 16 columns of a few words each, from a vector of columns for each word: vector i holds values
// 16 * i to 16 * i + 15 of column-major order. Shuffles grow with the square of the words.
constexpr int64_t kFewWords = 5;

struct FewWords {
  alignas(64) int32_t column[kFewWords][kLanes];
  __mmask16 lanes[kFewWords][kFewWords];  // of vector i, that hold word w

  explicit FewWords(int64_t words) {
    for (int64_t i = 0; i < words; ++i) {
      for (int64_t w = 0; w < words; ++w) lanes[i][w] = 0;
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const int64_t value = i * kLanes + lane;
        column[i][lane] = static_cast<int32_t>(value / words);
        lanes[i][value % words] |= static_cast<__mmask16>(1u << lane);
      }
    }
  }

  HWY_INLINE __m512i vector(int64_t i, int64_t words, const __m512i* of) const {
    const __m512i from = _mm512_load_si512(column[i]);
    __m512i values = _mm512_permutexvar_epi32(from, of[0]);
    for (int64_t w = 1; w < words; ++w) {
      values = _mm512_mask_permutexvar_epi32(values, lanes[i][w], from, of[w]);
    }
    return values;
  }
};

// One chunk of channels from c on; see TilesCopy.
template <class Word, typename T>
struct ChunkCopy {
  using V = hn::Vec<D>;

  const TilesCopy<T>& copy;
  const FewWords& few;
  int64_t c;

  const Interleave<T>& source() const { return copy.source; }
  int64_t exist(int64_t word) const {
    return larger(0, source().channels - c - word * Word::kChannels);
  }

  void adjoining(const T* row, int64_t begin, int64_t end, int32_t* to) const {
    const Interleave<T>& t = source();
    constexpr int64_t kWords = kLanes / Word::kChannels;
    if (sizeof(T) == 2 && copy.words == 2) return two_words(row, begin, end, to);
    for (int64_t w = 0; w < copy.words; w += kWords) {
      const T* from = row + channel_at(t, exist(w) > 0 ? c + w * Word::kChannels : 0);
      const int64_t some = exist(w), count = smaller(kWords, copy.words - w);
      for (int64_t j = begin; j < end; ++j) {
        const auto words = Word::round(load_lanes(from + j * t.w_step, some), copy.levels);
        Word::store(words, to + j * copy.words + w, count);
      }
    }
  }

  // Pixels of 3 or 4 bfloat16: with each come the first values of the next one, but for the last.
  void two_words(const T* row, int64_t begin, int64_t end, int32_t* to) const {
    const Interleave<T>& t = source();
    const int64_t bytes = t.channels * static_cast<int64_t>(sizeof(T));
    const uint64_t kept = ~uint64_t{0} >> (64 - 8 * bytes);
    const int64_t whole = t.channels + t.w_step >= 4 ? end - 1 : begin;
    for (int64_t j = begin; j < whole; ++j) {
      uint64_t pixel;
      __builtin_memcpy(&pixel, row + j * t.w_step, sizeof pixel);
      pixel &= kept;
      __builtin_memcpy(to + 2 * j, &pixel, sizeof pixel);
    }
    for (int64_t j = whole; j < end; ++j) {
      uint64_t pixel = 0;
      __builtin_memcpy(&pixel, row + j * t.w_step, static_cast<size_t>(bytes));
      __builtin_memcpy(to + 2 * j, &pixel, sizeof pixel);
    }
  }

  void planes(const T* row, int64_t begin, int64_t end, int32_t* to) const {
    const Interleave<T>& t = source();
    for (int64_t j = begin; j < end; j += kLanes) {
      const int64_t count = smaller(kLanes, end - j);
      const auto words_of = [&](int64_t w) HWY_ATTR {
        const int64_t some = exist(w);
        const T* from = row + (some > 0 ? c + w * Word::kChannels : 0) * t.c_step + j * t.w_step;
        return column_words<Word>(t, from, some, count, copy.levels);
      };
      int32_t* const place = to + j * copy.words;
      if (copy.words <= kFewWords) {
        __m512i words[kFewWords];
        for (int64_t w = 0; w < copy.words; ++w) words[w] = words_of(w);
        const int64_t words_left = count * copy.words;
        for (int64_t i = 0; i * kLanes < words_left; ++i) {
          _mm512_mask_storeu_epi32(place + i * kLanes, first_of(words_left - i * kLanes),
                                   few.vector(i, copy.words, words));
        }
      } else {
        V tile[kLanes];
        for (int64_t w = 0; w < kLanes; ++w) {
          tile[w] = V{_mm512_castsi512_ps(w < copy.words ? words_of(w) : _mm512_setzero_si512())};
        }
        transpose(D(), tile);
        for (int64_t k = 0; k < count; ++k) {
          _mm512_mask_storeu_epi32(place + k * copy.words, first_of(copy.words),
                                   _mm512_castps_si512(tile[k].raw));
        }
      }
    }
  }
};

template <class Word, typename T>
void copy_tiles(const TilesCopy<T>& copy, float* memory) {
  const Interleave<T>& t = copy.source;
  auto* to = reinterpret_cast<int32_t*>(memory);
  const int64_t chunk = copy.words * Word::kChannels, row_words = t.columns * copy.words;
  const FewWords few(smaller(copy.words, kFewWords));
  for (int64_t c = 0; c < t.channels; c += chunk, to += t.rows * row_words) {
    const ChunkCopy<Word, T> part{copy, few, c};
    for_rows(
        t,
        [&](int64_t row, const T* from, int64_t begin, int64_t end) {
          t.block > 1 || t.c_step == 1 ? part.adjoining(from, begin, end, to + row * row_words)
                                       : part.planes(from, begin, end, to + row * row_words);
        },
        [&](int64_t row, int64_t begin, int64_t end) {
          int32_t* words = to + row * row_words;
          for (int64_t i = begin * copy.words; i < end * copy.words; ++i) {
            words[i] = Word::outside(copy.levels);
          }
        });
  }
}

}  // namespace
}  // namespace convship::kernels::conv2d
