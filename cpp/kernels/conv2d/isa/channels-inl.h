// Output channels in the lanes: see cpp/kernels/README.md. Included once by
// each file that is compiled for an instruction set of its own.

// How a conv row becomes a pooled row.
enum class RowPool {
  none,   // windows one column wide: the row as it is
  pairs,  // 2 columns, step 2, no padding: in registers
  any,
};

// What a tap's weights and one value of the input make of a sum: here, float
// times float. Others in words-inl.h.
template <class D>
struct OneProduct {
  using A = hn::TFromD<D>;
  using V = hn::Vec<D>;
  using Sum = V;
  static constexpr bool kHasGroups = sizeof(A) == sizeof(float);
  static constexpr bool kLanewise = false;  // each lane has an input channel of its own
  // From a blocked image's column to the next.
  static constexpr int kBlockStep = hn::MaxLanes(D());
  // Of a tile: beside so many, the load of a weight hardly shows, and compilers take long over
  // each number of columns.
  static constexpr int kMostColumns = sizeof(A) == sizeof(float) ? 22 : 8;
  static HWY_INLINE V value(const A* from) { return hn::Set(D(), *from); }
  static HWY_INLINE Sum begin(const A* start) { return hn::Load(D(), start); }
  static HWY_INLINE Sum add(Sum sum, V value, V weight) { return hn::MulAdd(value, weight, sum); }
  static HWY_INLINE V end(Sum sum, const A* /*start*/, const A* /*scale*/) {
    return without_minus_zero(sum);
  }
};

// Of depthwise layers.
template <class D>
struct LanewiseProduct : OneProduct<D> {
  static constexpr bool kHasGroups = false;
  static constexpr bool kLanewise = true;
  static HWY_INLINE hn::Vec<D> value(const hn::TFromD<D>* from) { return hn::LoadU(D(), from); }
};

template <class D, int kVectors, class Product = OneProduct<D>>
struct Channels {
  using P = Pooling<D, kVectors>;
  using A = typename P::A;
  using V = typename P::V;
  using I = typename P::I;
  static constexpr int64_t kLanes = P::kLanes;
  static constexpr int64_t kBlock = P::kBlock;
  // Two blocks of weights at once, where a CPU has 16 registers: three columns and four
  // vectors take the fewest instructions for 12 multiply-adds (add_tap).
  static constexpr bool kPairsBlocks = kVectors == 4;
  static constexpr int kWeightVectors = kPairsBlocks ? 2 : kVectors;  // of a block
  static constexpr int64_t kWeightBlock = kWeightVectors * kLanes;
  // Accumulators, the weights of a tap and one input fill the registers.
  static constexpr int kTile =
      kPairsBlocks ? 3
                   : static_cast<int>(smaller(Product::kMostColumns,
                                              (kRegisters - kVectors - 1) / kVectors / 2 * 2));
  // Where so few columns fill them, short rows make tiles that have too few sums
  // in flight: a tile may then go on in the rows below. Their columns have
  // addresses of their own, for which larger tiles would lack registers.
  static constexpr bool kHasFlatTiles = kTile <= 6;
  static constexpr int kFlat = -1;  // kStep of such tiles
  // Whether there are tiles for some column steps alone. Compilers take long over each.
  static constexpr bool kKnowsSteps = sizeof(A) == sizeof(float);

  struct Taps {
    TapRunRange runs;
    const A* start;      // what a sum starts from: the bias, or a sum so far
    int64_t start_step;  // from column to column
  };

  const ChannelsTask<A>& t;
  A* const rows;  // of the conv result, with margins
  const int64_t row_size;
  const P pooling;

  explicit Channels(const ChannelsTask<A>& task)
      : t(task),
        rows(task.scratch),
        row_size(row_scratch(task.pool, task.pool.conv.w, kBlock)),
        pooling(task.pool,
                task.target,
                task.ring,
                rows + row_size * waiting_rows(task.pool, in_steps())) {}

  RowPool row_pool() const {
    const Pool& p = t.pool;
    if (pooling.indexed()) return RowPool::any;
    if (p.size.w == 1 && p.stride.w == 1) return RowPool::none;
    const bool pairs = p.size.w == 2 && p.stride.w == 2 && p.padding.w == 0;
    return pairs && 2 * p.width <= p.conv.w ? RowPool::pairs : RowPool::any;
  }

  bool in_steps() const { return t.source.row_taps.steps > 1; }

  // Of conv row r, from the bias on.
  Taps taps_of(int64_t r, int64_t step = 0) const {
    return {runs_of_row(t.source.row_taps, r, step), t.bias, 0};
  }

  const A* input_of(int64_t r) const {
    return t.source.x + (r - t.source.first_row) * t.source.row_step;
  }

  // The weights of the next step, or of the next block, which follows, while
  // `tiles` tiles are summed: none where the band before has summed all conv rows.
  Ahead<A> ahead_of(int64_t step, int64_t tiles) const {
    if (!t.prefetch) return {t.weight, 0};
    const int64_t end = smaller((step + 1) * t.taps_at_once, t.source.taps);
    // Behind the last step is the next block, or the other one of this pair.
    const int64_t other = kPairsBlocks && end == t.source.taps ? t.block_step : 0;
    return {t.weight + end * kWeightBlock + other, kTapGroup * kWeightBlock / larger(tiles, 1) + 1,
            t.block_step};
  }

  void run() const {
    if constexpr (kPairsBlocks) {
      run_without_pooling();
    } else {
      const RowPool how = row_pool();
      if (pools_nothing(t.pool) && pooling.writes_directly()) return run_without_pooling();
      if (in_steps()) return run_in_steps();
      if (how == RowPool::any) pooling.fill_margins(rows);
      pooling.run([&](int64_t r, A* to, I* index) { conv_row(r, how, to, index); });
    }
  }

  // Sums and row-pools conv row r.
  void conv_row(int64_t r, RowPool how, A* pooled, I* index) const {
    const Pool& p = t.pool;
    Ahead<A> nothing{t.weight, 0};
    if (how == RowPool::pairs) {
      tiles<true>(taps_of(r), nothing, input_of(r), p.width, pooled);
    } else if (how == RowPool::none) {
      tiles<false>(taps_of(r), nothing, input_of(r), p.width, pooled);
    } else {
      tiles<false>(taps_of(r), nothing, input_of(r), conv_columns_end(p),
                   rows + p.padding.w * kBlock);
      pooling.pool_columns(rows, pooled, index);
    }
  }

  // All results of the band, some taps at a time, and with the last ones each tile
  // to its place.
  void run_without_pooling() const {
    const int64_t last = t.source.row_taps.steps - 1;
    for (int64_t step = 0; step < last; ++step) step_without_pooling<false>(step);
    step_without_pooling<true>(last);
  }

  template <bool kFinal>
  void step_without_pooling(int64_t step) const {
    if constexpr (kHasFlatTiles) {
      if (flat_tiles_are_faster()) return flat_tiles<kFinal>(step);
    }
    const int64_t width = t.pool.width, height = t.pool.end - t.pool.begin;
    Ahead<A> ahead = ahead_of(step, height * Tiles(width, kTile).number);
    for (int64_t y = 0; y < height; ++y) {
      A* const sums = rows + y * width * kBlock;
      const Taps taps = from_sums(taps_of(t.pool.begin + y, step), step, sums);
      tiles<false, kFinal>(taps, ahead, input_of(t.pool.begin + y), width,
                           kFinal ? t.target.y + y * t.target.row_step : sums);
    }
  }

  static Taps from_sums(Taps taps, int64_t step, const A* sums) {
    return step > 0 ? Taps{taps.runs, sums, kBlock} : taps;
  }

  // All conv rows of the band, some taps at a time.
  void run_in_steps() const {
    const Pool& p = t.pool;
    const int64_t last = conv_rows_end(p);
    const auto row = [&](int64_t r) { return rows + (r - t.source.first_row) * row_size; };
    for (int64_t step = 0; step < t.source.row_taps.steps; ++step) {
      Ahead<A> ahead =
          ahead_of(step, (last - t.source.first_row) * Tiles(conv_columns_end(p), kTile).number);
      for (int64_t r = t.source.first_row; r < last; ++r) {
        A* const sums = row(r) + p.padding.w * kBlock;
        tiles<false>(from_sums(taps_of(r, step), step, sums), ahead, input_of(r),
                     conv_columns_end(p), sums);
      }
    }
    pooling.run([&](int64_t r, A* to, I* index) {
      pooling.fill_margins(row(r));
      pooling.pool_columns(row(r), to, index);
    });
  }

  // Whether the band's rows follow each other in the result, and are better summed
  // as one, although a tile of several rows sums the taps of all. Counted in
  // instructions; so few that a multiply-add's four cycles show count as kLeast.
  bool flat_tiles_are_faster() const {
    const auto cost = [&](int64_t count, int64_t of_tile) {
      const Tiles tiles(count, kTile);
      constexpr int64_t kLeast = 16;
      const auto of_tap = [](int64_t columns) {
        return larger(kLeast, columns * (kVectors + 1) + kVectors);
      };
      return tiles.number * of_tile +
             t.source.taps * (tiles.larger_ones * of_tap(tiles.size + 1) +
                              (tiles.number - tiles.larger_ones) * of_tap(tiles.size));
    };
    // What surrounds a tile's taps.
    constexpr int64_t kTileOfRow = 60, kTileOfRows = 100;
    const int64_t width = t.pool.width, height = t.pool.end - t.pool.begin;
    return t.target.row_step == width * t.target.column_step &&
           static_cast<float>(cost(height * width, kTileOfRows)) <
               t.source.row_taps.share * static_cast<float>(height * cost(width, kTileOfRow));
  }

  template <bool kFinal>
  void flat_tiles(int64_t step) const {
    const int64_t width = t.pool.width;
    const Tiles tiles((t.pool.end - t.pool.begin) * width, kTile);
    Ahead<A> ahead = ahead_of(step, tiles.number);
    for (int64_t i = 0, first = 0; i < tiles.number; ++i) {
      const int64_t now = tiles[i];
      const int64_t top = t.pool.begin + first / width;
      const int64_t bottom = t.pool.begin + (first + now - 1) / width;
      const A* columns[kTile];
      for (int64_t j = 0, r = top, column = first % width; j < now; ++j) {
        columns[j] = input_of(r) + column * t.source.column_step;
        if (++column == width) {
          column = 0;
          ++r;
        }
      }
      A* const sums = rows + first * kBlock;
      Taps taps = from_sums(taps_of(top, step), step, sums);
      if (bottom > top) taps.runs = all_runs(t.source.row_taps, step);
      const auto one = pick_tile<false, kFinal, kTile, const A* const*>(now);
      one(*this, taps, ahead, columns, kFinal ? t.target.y + first * t.target.column_step : sums);
      first += now;
    }
  }

  // `count` results, columns or pairs of them. kFinal: `to` is in the result.
  template <bool kPairs, bool kFinal = false>
  void tiles(Taps taps, Ahead<A>& ahead, const A* x, int64_t count, A* to) const {
    constexpr int64_t kMost = kPairs ? kTile / 2 : kTile;
    const Tiles tiles(count, kMost);
    const auto sum = [&](int64_t number, int64_t size) HWY_ATTR {
      if (number == 0) return;
      const auto one = pick_tile<kPairs, kFinal, kMost, const A*>(size);
      const int64_t columns = (kPairs ? 2 : 1) * size;
      const int64_t step = columns * t.source.column_step;
      const int64_t start_step = columns * taps.start_step;
      const int64_t to_step = size * (kFinal ? t.target.column_step : kBlock);
      for (int64_t i = 0; i < number; ++i, x += step, to += to_step) {
        one(*this, taps, ahead, x, to);
        taps.start += start_step;
      }
    };
    sum(tiles.larger_ones, tiles.size + 1);
    sum(tiles.number - tiles.larger_ones, tiles.size);
  }

  // x: as tile's.
  template <class Input>
  using Tile =
      void (*)(const Channels& channels, const Taps& taps, Ahead<A>& ahead, Input x, A* to);

  template <bool kPairs, bool kFinal, int kSize, class Input>
  Tile<Input> pick_tile(int64_t size) const {
    if constexpr (kSize > 1) {
      if (size < kSize) return pick_tile<kPairs, kFinal, kSize - 1, Input>(size);
    }
    if constexpr (!hwy::IsSame<Input, const A*>()) {
      return tile<kPairs, kFinal, kSize, kFlat, Input>;
    } else {
      if constexpr (kKnowsSteps) {
        if (t.source.column_step == Product::kBlockStep) {
          return tile<kPairs, kFinal, kSize, Product::kBlockStep, Input>;
        }
      }
      if constexpr (kKnowsSteps && !Product::kLanewise) {
        if (t.source.column_step == 1) return tile<kPairs, kFinal, kSize, 1, Input>;
        if (t.source.column_step == 2) return tile<kPairs, kFinal, kSize, 2, Input>;
      }
      return tile<kPairs, kFinal, kSize, 0, Input>;
    }
  }

  // Whether a tile's columns have a register each for their addresses.
  template <int kColumns, int kStep>
  static constexpr bool kHasAddresses = kStep <= 0 && kColumns <= 6;

  // Whether tiles have a loop over groups of taps: those whose columns are at known
  // distances, or have addresses. Compilers take long over it, so the rare ones have none.
  template <int kColumns, int kStep>
  static constexpr bool kHasGroups =
      Product::kHasGroups && kVectors > 1 &&
      (kStep == Product::kBlockStep || kHasAddresses<kColumns, kStep>);

  // Whether sums, weights and input take all of 16 registers.
  static constexpr bool kFull = kRegisters == 16 && Product::kHasGroups && kVectors > 2;

  // Compilers that let sums change places between taps move some to memory and back.
  template <int kColumns>
  static HWY_INLINE void keep_in_registers(typename Product::Sum (*sums)[kVectors]) {
    unrolled_array<kColumns, kVectors>([&](auto j, auto v) CONVSHIP_INLINE {
      asm("" : "+x"(sums[j][v].raw));
    });
  }

  // Adds a tap to the sums of a tile: value(j) of the input times the weights that lie `at`
  // behind w, and in the second block of a pair, behind second.
  template <int kColumns, class Value>
  static HWY_INLINE void add_tap(const Value& value,
                                 const A*& w,
                                 const A*& second,
                                 int64_t at,
                                 typename Product::Sum (*sums)[kVectors]) {
    const D d;
    if constexpr (kPairsBlocks) {
      V values[kColumns];
      unrolled<kColumns>([&](auto j) CONVSHIP_INLINE { values[j] = value(j); });
      unrolled<kVectors - 1>([&](auto v) CONVSHIP_INLINE {
        const int64_t of_block = v % kWeightVectors * kLanes;
        const V weight = hn::Load(d, (v < kWeightVectors ? w : second) + at + of_block);
        unrolled<kColumns>([&](auto j) CONVSHIP_INLINE {
          sums[j][v] = Product::add(sums[j][v], values[j], weight);
        });
      });
      unrolled<kColumns>([&](auto j) CONVSHIP_INLINE {
        V& sum = sums[j][kVectors - 1];
        sum = Product::add(sum, values[j], operand(d, second, at + kLanes));
      });
    } else {
      constexpr int kLoaded = kFull ? kVectors - 1 : kVectors;
      V weight[kLoaded];
      CONVSHIP_UNROLL
      for (int v = 0; v < kLoaded; ++v) weight[v] = hn::Load(d, w + at + v * kLanes);
      CONVSHIP_UNROLL
      for (int j = 0; j < kColumns; ++j) {
        const V x = value(j);
        CONVSHIP_UNROLL
        for (int v = 0; v < kLoaded; ++v) sums[j][v] = Product::add(sums[j][v], x, weight[v]);
        if constexpr (kFull) {
          V& sum = sums[j][kLoaded];
          sum = Product::add(sum, x, operand(d, w, at + kLoaded * kLanes));
        }
      }
    }
    if constexpr (kFull) keep_in_registers<kColumns>(sums);
  }

  // Compilers would keep what a tile needs a few times in memory of its own, as registers
  // are full of sums: it is there already.
  static HWY_INLINE const ChannelsTask<A>& reread(const ChannelsTask<A>& task) {
    const ChannelsTask<A>* same = &task;
    asm("" : "+r"(same));
    return *same;
  }

  // Adds a run of taps, whole groups of them, to the sums of a tile. at: the address of
  // each column.
  template <int kColumns, int kStep>
  static HWY_INLINE void add_groups(const A* const* at,
                                    const ChannelsTask<A>& task,
                                    TapRun run,
                                    Ahead<A>& ahead,
                                    typename Product::Sum (*sums)[kVectors]) {
    const A* w = task.weight + run.begin * kWeightBlock;
    const A* second = w + task.block_step;
    const int32_t* offset = task.source.offsets + run.begin;
    const int32_t* const end = task.source.offsets + run.end;
    const int64_t next = task.source.ahead;
    const auto input = [&](int64_t tap, int j) CONVSHIP_INLINE {
      if constexpr (kStep > 0) return at[0] + tap + j * kStep;
      return at[j] + tap;
    };
    for (; offset != end; offset += kTapGroup) {
      ahead.template fetch<kPairsBlocks>();
      if (next > 0) {
        const int64_t tap = offset[next];
        unrolled<kColumns>([&](auto j)
                               CONVSHIP_INLINE { __builtin_prefetch(input(tap, j), 0, 3); });
      }
      const int64_t tap = *offset;
      CONVSHIP_UNROLL
      for (int k = 0; k < kTapGroup; ++k) {
        add_tap<kColumns>([&](int j) CONVSHIP_INLINE { return Product::value(input(tap, j) + k); },
                          w, second, k * kWeightBlock, sums);
      }
      w += kTapGroup * kWeightBlock;
      second += kTapGroup * kWeightBlock;
    }
  }

  // x: the first column, and kStep: column_step where it is known, else 0; or the
  // address of each column, and kFlat.
  template <bool kPairs, bool kFinal, int kSize, int kStep, class Input>
  static HWY_NOINLINE void tile(
      const Channels& channels, const Taps& taps, Ahead<A>& ahead, const Input x, A* to) {
    const ChannelsTask<A>& t = channels.t;
    constexpr int kColumns = kPairs ? 2 * kSize : kSize;
    const D d;
    const auto start = [&](int j, int v) CONVSHIP_INLINE {
      return taps.start + j * taps.start_step + v * kLanes;
    };
    const int64_t step = kStep > 0 ? kStep : t.source.column_step;
    const A* columns[kColumns];
    unrolled<kColumns>([&](auto j) CONVSHIP_INLINE {
      if constexpr (kStep == kFlat) {
        columns[j] = x[j];
      } else {
        columns[j] = x + j * step;
        // Compilers would make an address of every tap's distance instead, and keep all
        // but a few of these in memory.
        if constexpr (kHasAddresses<kColumns, kStep>) asm("" : "+r"(columns[j]));
      }
    });
    typename Product::Sum sums[kColumns][kVectors];
    unrolled_array<kColumns, kVectors>(
        [&](auto j, auto v) CONVSHIP_INLINE { sums[j][v] = Product::begin(start(j, v)); });
    Ahead<A> now = ahead;  // in registers
    if (kHasGroups<kColumns, kStep> && t.source.grouped) {
      if constexpr (kHasGroups<kColumns, kStep>) {
        for (const TapRun* run = taps.runs.begin; run != taps.runs.end; ++run) {
          const ChannelsTask<A>& task = reread(t);
          add_groups<kColumns, kStep>(columns, task, *run, now, sums);
        }
      }
    } else {
      for (const TapRun* run = taps.runs.begin; run != taps.runs.end; ++run) {
        const ChannelsTask<A>& task = reread(t);
        const A* w = task.weight + run->begin * kWeightBlock;
        const A* second = w + task.block_step;
        const int32_t* offset = task.source.offsets + run->begin;
        const int32_t* const end = task.source.offsets + run->end;
        while (offset != end) {
          now.template fetch<kPairsBlocks>();
          const int32_t* const group = end - offset > kTapGroup ? offset + kTapGroup : end;
          for (; offset != group; ++offset, w += kWeightBlock, second += kWeightBlock) {
            const int64_t tap = *offset;
            const auto value = [&](int j) CONVSHIP_INLINE {
              if constexpr (kHasAddresses<kColumns, kStep>) {
                return Product::value(columns[j] + tap);
              } else {
                return Product::value(x + tap + j * step);
              }
            };
            add_tap<kColumns>(value, w, second, 0, sums);
          }
        }
      }
    }
    ahead = now;
    V sum[kColumns][kVectors];
    unrolled_array<kColumns, kVectors>([&](auto j, auto v) CONVSHIP_INLINE {
      sum[j][v] = Product::end(sums[j][v], start(j, v), t.scale + v * kLanes);
    });
    if constexpr (kFinal) return channels.pooling.template finish<kSize>(sum, to);
    unrolled_array<kSize, kVectors>([&](auto j, auto v) CONVSHIP_INLINE {
      const V value = kPairs ? max_of(sum[2 * j][v], sum[2 * j + 1][v]) : sum[j][v];
      hn::Store(value, d, to + (j * kVectors + v) * kLanes);
    });
  }
};

// Of a ChannelsTask; four are two blocks.
template <typename A, class Product = OneProduct<hn::ScalableTag<A>>>
constexpr int kMaxChannelVectors = kRegisters == 16 && Product::kHasGroups ? 4 : 3;

template <class Product, typename A>
void channels_with(const ChannelsTask<A>& task) {
  using D = hn::ScalableTag<A>;
  if (task.vectors == 1) {
    Channels<D, 1, Product>(task).run();
  } else if (task.vectors == 2) {
    Channels<D, 2, Product>(task).run();
  } else if (kMaxChannelVectors<A, Product> == 3 || task.vectors == 3) {
    Channels<D, 3, Product>(task).run();
  } else {
    Channels<D, kMaxChannelVectors<A, Product>, Product>(task).run();
  }
}

template <typename A>
void channels(const ChannelsTask<A>& task) {
  channels_with<OneProduct<hn::ScalableTag<A>>>(task);
}

template <typename A>
void depthwise(const ChannelsTask<A>& task) {
  using D = hn::ScalableTag<A>;
  Channels<D, 1, LanewiseProduct<D>>(task).run();
}
