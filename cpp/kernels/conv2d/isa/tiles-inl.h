// Sums of words in the tiles of a matrix unit (AMX), for one file each: that file includes this
// one and a word's rounding (word-*-inl.h), and gives kTileLoops a struct `Product`:
//
//   Word                         whose words it multiplies
//   kBegins                      whether sums begin with the bias, else with 0
//   multiply<kSum, kX, kW>()     adds to tile kSum the words of tile kX times those of kW
//   end(sum, bias, scale)        the values of 16 sums
//
// A tile of the input is up to 16 pixels, in rows, by a run of up to 16 words that adjoin in
// memory: channels of a pixel, and of its neighbours under a kernel row. A tile of weights has a
// row for each of those words, and a column for each of 16 output channels. Four tiles of sums
// hide each other's latency: two of pixels by two of channels, or four of pixels.
#pragma once

#include "kernels/conv2d/isa/rounding-inl.h"

namespace convship::kernels::conv2d {
namespace {

constexpr int64_t kTileRows = 16;
// Beside 16 rows, how many a product takes as long as: four of them hide a latency of 52 cycles.
constexpr int64_t kFewestRows = 13;

template <int kTile>
HWY_INLINE void load_tile(const float* from, int64_t step) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
               :
               : "r"(from), "r"(step * static_cast<int64_t>(sizeof(float))), "i"(kTile)
               : "memory");
}

template <int kTile>
HWY_INLINE void store_tile(float* to, int64_t step) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
               :
               : "r"(to), "r"(step * static_cast<int64_t>(sizeof(float))), "i"(kTile)
               : "memory");
}

template <int kTile>
HWY_INLINE void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

// What LDTILECFG reads.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes[16] = {};  // of a row
  uint8_t rows[16] = {};
};

// Conv rows [first, end) in tiles of equally many pixels, the last of which may begin early.
// Pixels of several rows lie at the same distance from each other where the convolution steps
// over none; then rows may be one, with what lies between them.
struct Spread {
  int64_t first;
  int64_t width;
  int64_t row_pixels = 0;  // from one row to the next one; 0: each row has tiles of its own
  int64_t in_row = 0;      // tiles
  int64_t pixels;          // of a tile
  int64_t count;           // tiles
  int64_t all;             // pixels

  // even: tiles begin and end at even columns; the width is even.
  Spread(
      int64_t first_, int64_t end, int64_t width_, int64_t row_step, int64_t column_step, bool even)
      : first(first_), width(width_) {
    const int64_t rows = end - first;
    in_row = (width + kTileRows - 1) / kTileRows;
    pixels = (width + in_row - 1) / in_row;
    if (even) pixels = (pixels + 1) / 2 * 2;
    count = rows * in_row;
    all = width;
    if (row_step % column_step != 0) return;
    const int64_t step = row_step / column_step;
    const int64_t joined = (rows - 1) * step + width;
    const int64_t tiles = (joined + kTileRows - 1) / kTileRows;
    if (even && step % 2 != 0) return;
    if (tiles * kTileRows >= count * larger(pixels, kFewestRows)) return;
    row_pixels = step;
    pixels = smaller(joined, kTileRows);
    count = tiles;
    all = joined;
  }

  struct Tile {
    int64_t row;
    int64_t column;  // may lie behind the row's last one
    int64_t seen;    // pixels that the tile before has, too
  };
  Tile operator[](int64_t number) const {
    const int64_t place = row_pixels > 0 ? number : number % in_row;
    const int64_t begin = smaller(place * pixels, all - pixels);
    const int64_t seen = place * pixels - begin;
    if (row_pixels == 0) return {first + number / in_row, begin, seen};
    return {first + begin / row_pixels, begin % row_pixels, seen};
  }
};

// Where sums go: to their place in the result; to rows in memory, which are pooled then; the
// larger of two neighbours to the ring of row-pooled rows.
enum class Goal { result, rows, pairs };

template <class Product, int kVectors>
struct TileSums {
  using P = Pooling<D, kVectors>;
  using V = hn::Vec<D>;
  using I = typename P::I;
  static constexpr int64_t kBlock = P::kBlock;
  static constexpr int kTiles = 4 / kVectors;  // of pixels at once
  static constexpr int64_t kTile = kTileRows * kBlock;

  const ChannelsTask<float>& t;
  float* const rows;  // of the conv result, with margins
  const int64_t row_size;
  const int64_t most_rows;
  const bool pairs;
  const P pooling;

  explicit TileSums(const ChannelsTask<float>& task)
      : t(task),
        rows(task.scratch),
        row_size(row_scratch(task.pool, task.pool.conv.w, kBlock)),
        most_rows(tile_rows(task.pool, kBlock)),
        pairs(has_pairs(task)),
        pooling(task.pool,
                task.target,
                task.pool.size.h + (pairs ? most_rows : 0),
                task.ring,
                rows + row_size * most_rows) {}

  static bool has_pairs(const ChannelsTask<float>& task) {
    const Pool& p = task.pool;
    return p.size.w == 2 && p.stride.w == 2 && p.padding.w == 0 && 2 * p.width <= p.conv.w &&
           !task.target.narrow && !task.target.wide;
  }

  void run() const {
    const Pool& p = t.pool;
    const auto one = [](Pair pair) { return pair.h == 1 && pair.w == 1; };
    if (one(p.size) && one(p.stride) && p.padding.h == 0 && p.padding.w == 0 &&
        pooling.writes_directly()) {
      return sum_rows<Goal::result>(p.begin, p.end, p.width);
    }
    const int64_t last = smaller(p.conv.h, (p.end - 1) * p.stride.h - p.padding.h + p.size.h);
    // Columns that windows look at, and rows, where windows leave some out.
    const int64_t width = smaller((p.width - 1) * p.stride.w - p.padding.w + p.size.w, p.conv.w);
    const int64_t most = p.stride.h > p.size.h ? smaller(p.size.h, most_rows) : most_rows;
    int64_t first = 0, summed = 0;  // rows in memory
    pooling.run([&](int64_t r, float* to, I* index) {
      if (r >= summed) {
        first = r;
        summed = smaller(last, r + most);
        if (pairs) {
          sum_rows<Goal::pairs>(first, summed, width);
        } else {
          sum_rows<Goal::rows>(first, summed, width);
        }
      }
      if (pairs) return;
      float* const row = rows + (r - first) * row_size;
      pooling.fill_margins(row);
      pooling.pool_columns(row, to, index);
    });
  }

  void configure(int64_t pixels) const {
    TileShapes shapes;
    const auto set = [&](int tile, int64_t tile_rows, int64_t words) {
      shapes.rows[tile] = static_cast<uint8_t>(tile_rows);
      shapes.bytes[tile] = static_cast<uint16_t>(4 * words);
    };
    for (int tile = 0; tile < 4; ++tile) set(tile, pixels, kLanes);
    for (int tile = 4; tile < 8; ++tile) {
      tile < 4 + inputs() ? set(tile, pixels, t.run_words) : set(tile, t.run_words, kLanes);
    }
    asm volatile("ldtilecfg %0" : : "m"(shapes));
  }

  // Tiles 0 to 3 hold sums, those behind them the input, the last ones weights.
  static constexpr int inputs() { return kVectors == 2 ? 2 : 3; }

  // Sums leave tiles by way of memory, which takes a while: meanwhile the next ones are summed.
  template <Goal kGoal>
  void sum_rows(int64_t begin, int64_t end, int64_t width) const {
    const Source<float>& from = t.source;
    const Spread spread(begin, end, width, from.row_step, from.column_step, kGoal == Goal::pairs);
    configure(spread.pixels);
    alignas(64) float sums[2][kTiles * kTile];
    const auto input_of = [&](int64_t number) {
      const Spread::Tile tile = spread[number];
      return from.x + (tile.row - from.first_row) * from.row_step + tile.column * from.column_step;
    };
    const auto finish_tiles = [&](int64_t number, int64_t count, const float* of) {
      for (int64_t k = 0; k < count; ++k) finish<kGoal>(spread, number + k, of + k * kTile);
    };
    int64_t done = 0, waiting = 0;  // tiles
    for (int64_t i = 0; i < spread.count;) {
      float* const now = sums[(i / kTiles) % 2];
      const float* x[kTiles];
      const int64_t count = spread.count - i >= kTiles ? kTiles : 1;
      for (int64_t k = 0; k < count; ++k) x[k] = input_of(i + k);
      const bool far = t.prefetch && i == 0;
      if (count == kTiles) {
        sum_tiles<kTiles>(x, far, now);
      } else {
        // The last ones, one by one.
        finish_tiles(done, waiting, sums[(done / kTiles) % 2]);
        sum_tiles<1>(x, far, now);
        finish_tiles(i, 1, now);
        done = ++i;
        waiting = 0;
        continue;
      }
      finish_tiles(done, waiting, sums[(done / kTiles) % 2]);
      done = i;
      waiting = count;
      i += count;
    }
    finish_tiles(done, waiting, sums[(done / kTiles) % 2]);
    asm volatile("tilerelease");
  }

  // kCount tiles of pixels, as [tile][pixel][kVectors][lanes]. far: weights come from memory.
  template <int kCount>
  HWY_INLINE void sum_tiles(const float* const* x, bool far, float* sums) const {
    begin<kCount>();
    const int64_t run = t.run_words, step = t.source.column_step;
    const int32_t* offset = t.source.offsets;
    const int32_t* const end = offset + t.source.taps;
    const float* w = t.weight;
    const float *x0 = x[0], *x1 = x[kCount > 1 ? 1 : 0];
    const float *x2 = x[kCount > 2 ? 2 : 0], *x3 = x[kCount > 3 ? 3 : 0];
    for (; offset < end; offset += run) {
      const int64_t at = *offset;
      const float* const next = w + run * kBlock;
      // Weights that follow those of this run, and those that no cache has kept.
      constexpr int64_t kAhead = 4096 / sizeof(float), kFarAhead = 32768 / sizeof(float);
      for (const float* line = w; line < next; line += kLanes) __builtin_prefetch(line + kAhead);
      if (far) {
        for (const float* line = w; line < next; line += kLanes) {
          __builtin_prefetch(line + kFarAhead, 0, 2);
        }
      }
      if constexpr (kVectors == 2) {
        load_tile<6>(w, kBlock);
        load_tile<7>(w + kLanes, kBlock);
        load_tile<4>(x0 + at, step);
        Product::template multiply<0, 4, 6>();
        Product::template multiply<1, 4, 7>();
        if constexpr (kCount == 2) {
          load_tile<5>(x1 + at, step);
          Product::template multiply<2, 5, 6>();
          Product::template multiply<3, 5, 7>();
        }
      } else {
        load_tile<7>(w, kBlock);
        load_tile<4>(x0 + at, step);
        Product::template multiply<0, 4, 7>();
        if constexpr (kCount == 4) {
          load_tile<5>(x1 + at, step);
          Product::template multiply<1, 5, 7>();
          load_tile<6>(x2 + at, step);
          Product::template multiply<2, 6, 7>();
          load_tile<4>(x3 + at, step);
          Product::template multiply<3, 4, 7>();
        }
      }
      w = next;
    }
    end_tiles<kCount>(sums);
  }

  template <int kCount>
  HWY_INLINE void begin() const {
    if constexpr (!Product::kBegins) {
      zero_tile<0>();
      zero_tile<1>();
      zero_tile<2>();
      zero_tile<3>();
    } else if constexpr (kVectors == 2) {
      load_tile<0>(t.bias, 0);
      load_tile<1>(t.bias + kLanes, 0);
      if constexpr (kCount == 2) {
        load_tile<2>(t.bias, 0);
        load_tile<3>(t.bias + kLanes, 0);
      }
    } else {
      load_tile<0>(t.bias, 0);
      if constexpr (kCount == 4) {
        load_tile<1>(t.bias, 0);
        load_tile<2>(t.bias, 0);
        load_tile<3>(t.bias, 0);
      }
    }
  }

  template <int kCount>
  HWY_INLINE void end_tiles(float* sums) const {
    store_tile<0>(sums, kBlock);
    if constexpr (kVectors == 2) {
      store_tile<1>(sums + kLanes, kBlock);
      if constexpr (kCount == 2) {
        store_tile<2>(sums + kTile, kBlock);
        store_tile<3>(sums + kTile + kLanes, kBlock);
      }
    } else if constexpr (kCount == 4) {
      store_tile<1>(sums + kTile, kBlock);
      store_tile<2>(sums + 2 * kTile, kBlock);
      store_tile<3>(sums + 3 * kTile, kBlock);
    }
  }

  // Brings a tile's sums to where they belong.
  template <Goal kGoal>
  void finish(const Spread& spread, int64_t number, const float* sums) const {
    const Spread::Tile tile = spread[number];
    int64_t row = tile.row, column = tile.column;
    const int64_t row_end = spread.row_pixels > 0 ? spread.row_pixels : spread.width;
    for (int64_t i = 0; i < spread.pixels;) {
      // What lies between two rows is skipped.
      const int64_t end = smaller(spread.pixels, i + row_end - column);
      const int64_t begin = larger(i, tile.seen);
      const int64_t kept = smaller(end, i + spread.width - column);
      if (begin < kept) {
        const float* const of = sums + begin * kBlock;
        const int64_t at = column + begin - i, count = kept - begin;
        if constexpr (kGoal == Goal::result) {
          finish_result(row, at, count, of);
        } else if constexpr (kGoal == Goal::rows) {
          store_row(of, count,
                    rows + (row - spread.first) * row_size + (t.pool.padding.w + at) * kBlock);
        } else {
          store_pairs(of, count / 2, pooling.ring + pooling.slot_of(row) + at / 2 * kBlock);
        }
      }
      i = end;
      column = 0;
      ++row;
    }
  }

  void finish_result(int64_t row, int64_t column, int64_t count, const float* sums) const {
    const Target<float>& target = t.target;
    float* to = target.y + (row - t.pool.begin) * target.row_step + column * target.column_step;
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) to = finish_some<4>(sums + i * kBlock, to);
    for (; i < count; ++i) to = finish_some<1>(sums + i * kBlock, to);
  }

  HWY_INLINE void store_row(const float* sums, int64_t count, float* to) const {
    for (int64_t i = 0; i < count * kBlock; i += kBlock) {
      CONVSHIP_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        hn::Store(value_of(sums + i, v), D(), to + i + v * kLanes);
      }
    }
  }

  HWY_INLINE void store_pairs(const float* sums, int64_t count, float* to) const {
    for (int64_t i = 0; i < count * kBlock; i += kBlock) {
      CONVSHIP_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const float* const pair = sums + 2 * i;
        hn::Store(max_of(value_of(pair, v), value_of(pair + kBlock, v)), D(), to + i + v * kLanes);
      }
    }
  }

  template <int kColumns>
  HWY_INLINE float* finish_some(const float* sums, float* to) const {
    V values[kColumns][kVectors];
    CONVSHIP_UNROLL
    for (int j = 0; j < kColumns; ++j) {
      CONVSHIP_UNROLL
      for (int v = 0; v < kVectors; ++v) values[j][v] = value_of(sums + j * kBlock, v);
    }
    pooling.template finish<kColumns>(values, to);
    return to + kColumns * t.target.column_step;
  }

  HWY_INLINE V value_of(const float* sums, int v) const {
    return Product::end(hn::Load(D(), sums + v * kLanes), t.bias + v * kLanes,
                        t.scale + v * kLanes);
  }
};

template <class Product>
void tiles(const ChannelsTask<float>& task) {
  task.vectors == 1 ? TileSums<Product, 1>(task).run() : TileSums<Product, 2>(task).run();
}

// 16 channels, of which `exist` do, as words.
template <class Word>
HWY_INLINE typename Word::Words words_at(const float* from, int64_t exist, const Levels& levels) {
  return Word::round(load_channels(from, exist), levels);
}
template <class Word>
HWY_INLINE __m256i words_at(const BFloat16* from, int64_t exist, const Levels&) {
  const auto mask = static_cast<__mmask16>((1u << smaller(exist, kLanes)) - 1);
  return _mm256_maskz_loadu_epi16(mask, from);
}

// `count` columns of neighbouring channels, of which `exist` do, as words.
template <class Word>
HWY_INLINE __m512i column_words(const Interleave<float>& t,
                                const float* from,
                                int64_t exist,
                                int64_t count,
                                const Levels& levels) {
  const auto mask = static_cast<__mmask16>((1u << count) - 1);
  __m512 planes[Word::kChannels];
  CONVSHIP_UNROLL
  for (int64_t k = 0; k < Word::kChannels; ++k, from += t.c_step) {
    if (k >= exist) {
      planes[k] = _mm512_setzero_ps();
    } else if (t.w_step == 1) {
      planes[k] = _mm512_maskz_loadu_ps(mask, from);
    } else {
      alignas(64) float lanes[kLanes] = {};
      for (int64_t i = 0; i < count; ++i) lanes[i] = from[i * t.w_step];
      planes[k] = _mm512_load_ps(lanes);
    }
  }
  return Word::join(planes, levels);
}
template <class Word>
HWY_INLINE __m512i column_words(const Interleave<BFloat16>& t,
                                const BFloat16* from,
                                int64_t exist,
                                int64_t count,
                                const Levels&) {
  const auto mask = static_cast<__mmask16>((1u << count) - 1);
  __m256i planes[Word::kChannels];
  CONVSHIP_UNROLL
  for (int64_t k = 0; k < Word::kChannels; ++k, from += t.c_step) {
    if (k >= exist) {
      planes[k] = _mm256_setzero_si256();
    } else if (t.w_step == 1) {
      planes[k] = _mm256_maskz_loadu_epi16(mask, from);
    } else {
      alignas(32) uint16_t lanes[kLanes] = {};
      for (int64_t i = 0; i < count; ++i) lanes[i] = from[i * t.w_step].bits;
      planes[k] = _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes));
    }
  }
  return Word::join(planes[0], planes[1]);
}

// The first `count` lanes.
HWY_INLINE __mmask16 first_of(int64_t count) {
  return static_cast<__mmask16>((uint32_t{1} << smaller(count, kLanes)) - 1);
}

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
    for (int64_t w = 0; w < copy.words; w += kWords) {
      const int64_t channel = exist(w) > 0 ? c + w * Word::kChannels : 0;
      const T* from = row + channel / t.block * t.c_step + channel % t.block;
      const int64_t some = exist(w), count = smaller(kWords, copy.words - w);
      for (int64_t j = begin; j < end; ++j) {
        const auto words = words_at<Word>(from + j * t.w_step, some, copy.levels);
        Word::store(words, to + j * copy.words + w, count);
      }
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

template <class Product>
constexpr TileLoops kTileLoops = {.channels_in_word = Product::Word::kChannels,
                                  .copy = copy_tiles<typename Product::Word, float>,
                                  .copy_bfloat16 = nullptr,
                                  .channels = tiles<Product>};

}  // namespace
}  // namespace convship::kernels::conv2d
