// Output channels in the lanes: see cpp/kernels/README.md. Included once by
// each file that is compiled for an instruction set of its own.

// How a conv row becomes a pooled row.
enum class RowPool {
  none,   // windows one column wide: the row as it is
  pairs,  // 2 columns, step 2, no padding: in registers
  any,
};

// What a tap's weights and one value of the input make of a sum: here, float
// times float. Others in dots-inl.h.
template <class D>
struct OneProduct {
  using A = hn::TFromD<D>;
  using V = hn::Vec<D>;
  using Sum = V;
  static HWY_INLINE Sum begin(const A* start) { return hn::Load(D(), start); }
  static HWY_INLINE Sum add(Sum sum, V value, V weight) { return hn::MulAdd(value, weight, sum); }
  static HWY_INLINE V end(Sum sum, const A* /*start*/, const A* /*scale*/) { return sum; }
};

template <class D, int kVectors, class Product = OneProduct<D>>
struct Channels {
  using P = Pooling<D, kVectors>;
  using A = typename P::A;
  using V = typename P::V;
  using I = typename P::I;
  static constexpr int64_t kLanes = P::kLanes;
  static constexpr int64_t kBlock = P::kBlock;
  // Accumulators, the weights of a tap and one input fill the registers.
  static constexpr int kTile = (kRegisters - kVectors - 1) / kVectors / 2 * 2;

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
        pooling(task.pool, task.target, rows + row_size * waiting_rows(task.pool, in_steps())) {}

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
    return {runs_of(t.source.row_taps, r, step), t.bias, 0};
  }

  const A* input_of(int64_t r) const {
    return t.source.x + (r - t.source.first_row) * t.source.row_step;
  }

  // Columns of a conv row that windows look at.
  int64_t columns() const {
    const Pool& p = t.pool;
    return smaller((p.width - 1) * p.stride.w - p.padding.w + p.size.w, p.conv.w);
  }

  void run() const {
    if (in_steps()) return run_in_steps();
    const RowPool how = row_pool();
    if (how == RowPool::none && pooling.writes_directly() && t.pool.size.h == 1 &&
        t.pool.stride.h == 1 && t.pool.padding.h == 0) {
      return run_without_pooling();
    }
    if (how == RowPool::any) pooling.fill_margins(rows);
    pooling.run([&](int64_t r, A* to, I* index) { conv_row(r, how, to, index); });
  }

  // Sums and row-pools conv row r.
  void conv_row(int64_t r, RowPool how, A* pooled, I* index) const {
    const Pool& p = t.pool;
    if (how == RowPool::pairs) {
      tiles<true>(taps_of(r), input_of(r), p.width, pooled);
    } else if (how == RowPool::none) {
      tiles<false>(taps_of(r), input_of(r), p.width, pooled);
    } else {
      tiles<false>(taps_of(r), input_of(r), columns(), rows + p.padding.w * kBlock);
      pooling.pool_columns(rows, pooled, index);
    }
  }

  // Each tile to its place in the result.
  void run_without_pooling() const {
    for (int64_t y = t.pool.begin; y < t.pool.end; ++y) {
      tiles<false, true>(taps_of(y), input_of(y), t.pool.width,
                         t.target.y + (y - t.pool.begin) * t.target.row_step);
    }
  }

  // All conv rows of the band, some taps at a time.
  void run_in_steps() const {
    const Pool& p = t.pool;
    const int64_t last = smaller(p.conv.h, (p.end - 1) * p.stride.h - p.padding.h + p.size.h);
    const auto row = [&](int64_t r) { return rows + (r - t.source.first_row) * row_size; };
    for (int64_t step = 0; step < t.source.row_taps.steps; ++step) {
      const int64_t end = smaller((step + 1) * t.taps_at_once, t.source.taps);
      // Inside of a network weights come from far away: the next step's (or the
      // next block's, which follow) are fetched meanwhile, a share with each row.
      const A* next = t.weight + end * kBlock;
      const int64_t share = t.taps_at_once * kBlock / (last - t.source.first_row) + 1;
      for (int64_t r = t.source.first_row; r < last; ++r) {
        constexpr int64_t kLine = 64 / sizeof(A);
        for (int64_t i = 0; i < share; i += kLine) __builtin_prefetch(next + i, 0, 2);
        next += share;
        A* to = row(r) + p.padding.w * kBlock;
        Taps taps = taps_of(r, step);
        if (step > 0) {
          taps.start = to;
          taps.start_step = kBlock;
        }
        tiles<false>(taps, input_of(r), columns(), to);
      }
    }
    pooling.run([&](int64_t r, A* to, I* index) {
      pooling.fill_margins(row(r));
      pooling.pool_columns(row(r), to, index);
    });
  }

  // `count` results (columns, or pairs of them), in tiles of nearly equal size:
  // a narrow last tile would have too few independent sums.
  // kFinal: `to` is in the result.
  template <bool kPairs, bool kFinal = false>
  void tiles(Taps taps, const A* x, int64_t count, A* to) const {
    constexpr int64_t kMost = kPairs ? kTile / 2 : kTile;
    const int64_t number = (count + kMost - 1) / kMost;
    const int64_t size = count / number;
    const int64_t larger_ones = count % number;
    const int64_t step = (kPairs ? 2 : 1) * t.source.column_step;
    const int64_t to_step = kFinal ? t.target.column_step : kBlock;
    for (int64_t i = 0; i < number; ++i) {
      const int64_t now = size + (i < larger_ones ? 1 : 0);
      pick_tile<kPairs, kFinal, kMost>(now, taps, x, to);
      x += now * step;
      to += now * to_step;
      taps.start += now * (kPairs ? 2 : 1) * taps.start_step;
    }
  }

  template <bool kPairs, bool kFinal, int kSize>
  void pick_tile(int64_t size, const Taps& taps, const A* x, A* to) const {
    if constexpr (kSize > 1) {
      if (size < kSize) return pick_tile<kPairs, kFinal, kSize - 1>(size, taps, x, to);
    }
    if (t.source.column_step == 1) {
      tile<kPairs, kFinal, kSize, 1>(taps, x, to);
    } else if (t.source.column_step == 2) {
      tile<kPairs, kFinal, kSize, 2>(taps, x, to);
    } else if (t.source.column_step == kLanes) {
      tile<kPairs, kFinal, kSize, kLanes>(taps, x, to);
    } else {
      tile<kPairs, kFinal, kSize, 0>(taps, x, to);
    }
  }

  // kStep: column_step where it is known, else 0.
  template <bool kPairs, bool kFinal, int kSize, int kStep>
  HWY_NOINLINE void tile(const Taps& taps, const A* x, A* to) const {
    constexpr int kColumns = kPairs ? 2 * kSize : kSize;
    const D d;
    const int64_t step = kStep ? kStep : t.source.column_step;
    const auto start = [&](int j, int v)
                           HWY_ATTR { return taps.start + j * taps.start_step + v * kLanes; };
    typename Product::Sum sums[kColumns][kVectors];
    CONVSHIP_UNROLL
    for (int j = 0; j < kColumns; ++j) {
      CONVSHIP_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[j][v] = Product::begin(start(j, v));
    }
    for (const TapRun* run = taps.runs.begin; run != taps.runs.end; ++run) {
      const A* w = t.weight + run->begin * kBlock;
      const int32_t* const end = t.source.offsets + run->end;
      for (const int32_t* offset = t.source.offsets + run->begin; offset != end; ++offset) {
        V weight[kVectors];
        CONVSHIP_UNROLL
        for (int v = 0; v < kVectors; ++v) weight[v] = hn::Load(d, w + v * kLanes);
        w += kBlock;
        const A* from = x + *offset;
        CONVSHIP_UNROLL
        for (int j = 0; j < kColumns; ++j) {
          const V value = hn::Set(d, from[j * step]);
          CONVSHIP_UNROLL
          for (int v = 0; v < kVectors; ++v) {
            sums[j][v] = Product::add(sums[j][v], value, weight[v]);
          }
        }
      }
    }
    V sum[kColumns][kVectors];
    CONVSHIP_UNROLL
    for (int j = 0; j < kColumns; ++j) {
      CONVSHIP_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        sum[j][v] = Product::end(sums[j][v], start(j, v), t.scale + v * kLanes);
      }
    }
    if constexpr (kFinal) return pooling.template finish<kSize>(sum, to);
    CONVSHIP_UNROLL
    for (int j = 0; j < kSize; ++j) {
      CONVSHIP_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const V value = kPairs ? max_of(sum[2 * j][v], sum[2 * j + 1][v]) : sum[j][v];
        hn::Store(value, d, to + (j * kVectors + v) * kLanes);
      }
    }
  }
};

template <class Product, typename A>
void channels_with(const ChannelsTask<A>& task) {
  using D = hn::ScalableTag<A>;
  if (task.vectors == 1) {
    Channels<D, 1, Product>(task).run();
  } else if (task.vectors == 2) {
    Channels<D, 2, Product>(task).run();
  } else {
    Channels<D, kMaxVectors, Product>(task).run();
  }
}

template <typename A>
void channels(const ChannelsTask<A>& task) {
  channels_with<OneProduct<hn::ScalableTag<A>>>(task);
}
