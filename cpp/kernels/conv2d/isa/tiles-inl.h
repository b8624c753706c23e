// Sums of words in the tiles of a matrix unit (AMX), for one file each: that file includes this
// one and a word's rounding (word-*-inl.h), and gives kTileLoops a struct `Product`:
//
//   Word                         whose words it multiplies
//   multiply<kSum, kX, kW>()     adds to tile kSum the words of tile kX times those of kW
//   end(sum, bias, scale)        the values of 16 sums
//
// A tile of the input is up to 16 pixels, in rows, by a run of up to 16 words that adjoin in
// memory: channels of a pixel, and of its neighbours under a kernel row. A tile of weights has a
// row for each of those words, and a column for each of 16 output channels. Four tiles of sums
// hide each other's latency: two of pixels by two of channels, or four of pixels.
#pragma once

#include "kernels/conv2d/isa/tile-copy-inl.h"
#include "kernels/conv2d/isa/tile-spread-inl.h"

namespace convship::kernels::conv2d {
namespace {

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
    if (pools_nothing(p) && pooling.writes_directly()) {
      return sum_rows<Goal::result>(p.begin, p.end, p.width);
    }
    const int64_t last = conv_rows_end(p), width = conv_columns_end(p);
    // Windows may leave rows out.
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
    Spread::Tile tiles[2][kTiles];
    Spread::Cursor cursor(spread);
    int64_t waiting = 0;  // tiles, of the other half
    for (int64_t i = 0, half = 0; i < spread.count; half = 1 - half) {
      const int64_t count = spread.count - i >= kTiles ? kTiles : 1;
      const float* x[kTiles];
      for (int64_t k = 0; k < count; ++k) {
        const Spread::Tile& tile = tiles[half][k] = cursor.next();
        x[k] =
            from.x + (tile.row - from.first_row) * from.row_step + tile.column * from.column_step;
      }
      const bool far = t.prefetch && i == 0;
      count == kTiles ? sum_tiles<kTiles>(x, far, sums[half]) : sum_tiles<1>(x, far, sums[half]);
      finish_tiles<kGoal>(spread, tiles[1 - half], waiting, sums[1 - half]);
      waiting = count;
      i += count;
      if (i >= spread.count) finish_tiles<kGoal>(spread, tiles[half], waiting, sums[half]);
    }
    asm volatile("tilerelease");
  }

  // kCount tiles of pixels, as [tile][pixel][kVectors][lanes]. far: weights come from memory,
  // and are fetched ahead; those in the second-level cache need not be (measured).
  template <int kCount>
  HWY_INLINE void sum_tiles(const float* const* x, bool far, float* sums) const {
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
    const int64_t run = t.run_words, step = t.source.column_step;
    const int32_t* offset = t.source.offsets;
    const int32_t* const end = offset + t.source.taps;
    const float* w = t.weight;
    const float *x0 = x[0], *x1 = x[kCount > 1 ? 1 : 0];
    const float *x2 = x[kCount > 2 ? 2 : 0], *x3 = x[kCount > 3 ? 3 : 0];
    for (; offset < end; offset += run) {
      const int64_t at = *offset;
      const float* const next = w + run * kBlock;
      if (far) {
        constexpr int64_t kAhead = 32768 / sizeof(float);
        for (const float* line = w; line < next; line += kLanes) {
          __builtin_prefetch(line + kAhead, 0, 2);
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

  template <Goal kGoal>
  void finish_tiles(const Spread& spread,
                    const Spread::Tile* tiles,
                    int64_t count,
                    const float* sums) const {
    for (int64_t k = 0; k < count; ++k) finish<kGoal>(spread, tiles[k], sums + k * kTile);
  }

  // Brings a tile's sums to where they belong.
  template <Goal kGoal>
  void finish(const Spread& spread, const Spread::Tile& tile, const float* sums) const {
    spread.for_each_run(tile, [&](int64_t row, int64_t column, int64_t pixel, int64_t count) {
      const float* const of = sums + pixel * kBlock;
      if constexpr (kGoal == Goal::result) {
        finish_result(row, column, count, of);
      } else if constexpr (kGoal == Goal::rows) {
        store_row(of, count,
                  rows + (row - spread.first) * row_size + (t.pool.padding.w + column) * kBlock);
      } else {
        store_pairs(of, count / 2, pooling.ring + pooling.slot_of(row) + column / 2 * kBlock);
      }
    });
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

template <class Product>
constexpr TileLoops kTileLoops = {.channels_in_word = Product::Word::kChannels,
                                  .copy = copy_tiles<typename Product::Word, float>,
                                  .copy_bfloat16 = nullptr,
                                  .channels = tiles<Product>};

}  // namespace
}  // namespace convship::kernels::conv2d
