// Conv columns in the lanes, weights broadcast: see cpp/kernels/README.md.

// kPhases 2, 3 or 4 adjoining values to as many places.
template <int kPhases, class D, typename A = hn::TFromD<D>>
HWY_INLINE void split_vectors(D d, const A* from, A* to, int64_t phase_step) {
  hn::Vec<D> a, b, c, e;
  if constexpr (kPhases == 2) {
    hn::LoadInterleaved2(d, from, a, b);
  } else if constexpr (kPhases == 3) {
    hn::LoadInterleaved3(d, from, a, b, c);
  } else {
    hn::LoadInterleaved4(d, from, a, b, c, e);
  }
  hn::StoreU(a, d, to);
  hn::StoreU(b, d, to + phase_step);
  if constexpr (kPhases >= 3) hn::StoreU(c, d, to + 2 * phase_step);
  if constexpr (kPhases == 4) hn::StoreU(e, d, to + 3 * phase_step);
}

// Value i of the row goes to position left + i.
template <int kPhases, typename A>
void split_row(const ColumnsSplit<A>& t, const A* from, A* to) {
  using D = hn::ScalableTag<A>;
  constexpr int64_t kLanes = hn::MaxLanes(D());
  const int64_t phases = kPhases ? kPhases : t.phases;
  int64_t i = 0;
  const auto one = [&] {
    const int64_t place = t.left + i;
    to[place % phases * t.phase_size + place / phases] = from[i];
    ++i;
  };
  if constexpr (kPhases == 1) {
    for (; i + kLanes <= t.image.w; i += kLanes) {
      hn::StoreU(hn::LoadU(D(), from + i), D(), to + t.left + i);
    }
  } else if constexpr (kPhases > 1) {
    while ((t.left + i) % kPhases != 0 && i < t.image.w) one();
    for (; i + kPhases * kLanes <= t.image.w; i += kPhases * kLanes) {
      split_vectors<kPhases>(D(), from + i, to + (t.left + i) / kPhases, t.phase_size);
    }
  }
  while (i < t.image.w) one();
}

template <typename A>
void columns_split(const ColumnsSplit<A>& t) {
  const hn::ScalableTag<A> d;
  constexpr int64_t kLanes = hn::MaxLanes(hn::ScalableTag<A>());
  const int64_t row_size = t.phases * t.phase_size;  // a multiple of the lanes
  for (int64_t c = 0; c < t.channels; ++c) {
    for (int64_t row = 0; row < t.rows; ++row) {
      A* to = t.to + (c * t.rows + row) * row_size;
      for (int64_t i = 0; i < row_size; i += kLanes) hn::Store(hn::Zero(d), d, to + i);
      const int64_t y = t.top + row;
      if (y < 0 || y >= t.image.h) continue;
      const A* from = t.from + c * t.c_step + y * t.h_step;
      switch (t.phases) {
        case 1:
          split_row<1>(t, from, to);
          break;
        case 2:
          split_row<2>(t, from, to);
          break;
        case 3:
          split_row<3>(t, from, to);
          break;
        case 4:
          split_row<4>(t, from, to);
          break;
        default:
          split_row<0>(t, from, to);
      }
    }
  }
}

// kChannels output channels.
template <class D, int kChannels>
struct Columns {
  using A = hn::TFromD<D>;
  using V = hn::Vec<D>;
  using DI = hn::RebindToSigned<D>;
  using I = hn::TFromD<DI>;
  static constexpr int64_t kLanes = hn::MaxLanes(D());
  // Vectors of columns beside each other: with few channels, enough sums to
  // hide the latency of an addition.
  static constexpr int kWide = kChannels == 1 ? 8 : kChannels <= 3 ? 12 / kChannels : 4;

  const ColumnsTask<A>& t;
  const ColumnsScratch sizes;
  A* const phases;  // [kChannels][stride][phase_size]
  A* const ring;    // [window row][kChannels][pooled_size]
  I* const ring_index;
  A* const result;  // [pooled_size]
  I* const result_index;

  explicit Columns(const ColumnsTask<A>& task)
      : t(task),
        sizes(columns_scratch(task.pool, kChannels, kLanes)),
        phases(task.scratch),
        ring(phases + kChannels * task.pool.stride.w * sizes.phase_size),
        ring_index(reinterpret_cast<I*>(ring + ring_size())),
        result(ring + 2 * ring_size()),
        result_index(reinterpret_cast<I*>(result + sizes.pooled_size)) {}

  int64_t ring_size() const { return t.pool.size.h * kChannels * sizes.pooled_size; }
  bool indexed() const { return t.target.narrow || t.target.wide; }

  void run() const {
    if (pools_pairs(t.pool) && !indexed()) {
      pool_in_registers();
    } else if (indexed()) {
      pool_rows<true>();
    } else {
      pool_rows<false>();
    }
  }

  // Sums of kChannels x kPhases x kRows x kVectors vectors: conv columns of
  // kPhases phases, of kRows rows, kVectors of them side by side.
  template <int kPhases, int kRows, int kVectors>
  HWY_INLINE void sums(const A* x,
                       const int32_t* offset,
                       V (&sum)[kChannels][kPhases * kRows * kVectors]) const {
    const D d;
    CONVSHIP_UNROLL
    for (int o = 0; o < kChannels; ++o) {
      CONVSHIP_UNROLL
      for (int i = 0; i < kPhases * kRows * kVectors; ++i) sum[o][i] = hn::Set(d, t.bias[o]);
    }
    const A* rows[kRows];
    CONVSHIP_UNROLL
    for (int r = 0; r < kRows; ++r) {
      rows[r] = x + r * t.row_step;
      asm("" : "+r"(rows[r]));  // an address each, and no sum for every tap
    }
    const A* const end = t.weight + t.taps * kChannels;
    const int64_t offset_step = t.pool.stride.w;
    for (const A* w = t.weight; w != end; w += kChannels, offset += offset_step) {
      // Weights stay in registers and inputs pass: the other way around there
      // would be one register too few.
      V weight[kChannels];
      CONVSHIP_UNROLL
      for (int o = 0; o < kChannels; ++o) weight[o] = hn::Set(d, w[o]);
      CONVSHIP_UNROLL
      for (int i = 0; i < kPhases * kRows * kVectors; ++i) {
        const int s = i / (kRows * kVectors), r = i / kVectors % kRows, v = i % kVectors;
        const V value = hn::LoadU(d, rows[r] + offset[s] + v * kLanes);
        CONVSHIP_UNROLL
        for (int o = 0; o < kChannels; ++o) sum[o][i] = hn::MulAdd(weight[o], value, sum[o][i]);
      }
    }
    CONVSHIP_UNROLL
    for (int o = 0; o < kChannels; ++o) {
      CONVSHIP_UNROLL
      for (int i = 0; i < kPhases * kRows * kVectors; ++i) {
        sum[o][i] = without_minus_zero(sum[o][i]);
      }
    }
  }

  // 2x2 windows that do not overlap: a window's four sums meet in one lane.
  void pool_in_registers() const {
    const Pool& p = t.pool;
    for (int64_t y = p.begin; y < p.end; ++y) {
      const A* x = t.x + (2 * y - t.first_row) * t.row_step;
      int64_t q = 0;
      if constexpr (kChannels == 1) {
        for (; q + kLanes < p.width; q += 2 * kLanes) windows<2>(x, y, q);
      }
      for (; q < p.width; q += kLanes) windows<1>(x, y, q);
    }
  }

  template <int kVectors>
  HWY_NOINLINE void windows(const A* x, int64_t y, int64_t q) const {
    V sum[kChannels][4 * kVectors];
    sums<2, 2, kVectors>(x + q, t.offsets, sum);
    CONVSHIP_UNROLL
    for (int o = 0; o < kChannels; ++o) {
      CONVSHIP_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const V best = max_of(max_of(sum[o][v], sum[o][kVectors + v]),
                              max_of(sum[o][2 * kVectors + v], sum[o][3 * kVectors + v]));
        write(o, y, q + v * kLanes, best);
      }
    }
  }

  // A vector of pooled values to its place; activation comes last.
  HWY_INLINE void write(int o, int64_t y, int64_t q, V value) const {
    const D d;
    const Target<A>& to = t.target;
    const int64_t at = to.starts[o] + (y - t.pool.begin) * to.row_step + q * to.column_step;
    const int64_t exist = smaller(kLanes, t.pool.width - q);
    HWY_ALIGN A lanes[kLanes] = {};
    if (to.residual) {
      for (int64_t i = 0; i < exist; ++i) lanes[i] = to.residual[at + i * to.column_step];
      value = hn::Add(value, hn::Load(d, lanes));
    }
    value = activate(to.activation, value);
    if (to.column_step == 1 && exist == kLanes) {
      hn::StoreU(value, d, to.y + at);
    } else {
      hn::Store(value, d, lanes);
      for (int64_t i = 0; i < exist; ++i) to.y[at + i * to.column_step] = lanes[i];
    }
  }

  // Any windows: conv rows phase by phase into memory, then their maxima.
  template <bool kIndex>
  void pool_rows() const {
    const Pool& p = t.pool;
    int64_t next = 0;
    for (int64_t y = p.begin; y < p.end; ++y) {
      const int64_t top = y * p.stride.h - p.padding.h;
      const int64_t begin = larger(top, 0);
      const int64_t end = smaller(top + p.size.h, p.conv.h);
      for (next = larger(next, begin); next < end; ++next) {
        conv_row(t.x + (next - t.first_row) * t.row_step);
        for (int o = 0; o < kChannels; ++o) {
          const int64_t slot = (next % p.size.h * kChannels + o) * sizes.pooled_size;
          pool_columns<kIndex>(o, ring + slot, ring_index + slot);
        }
      }
      for (int o = 0; o < kChannels; ++o) pool_window<kIndex>(o, y, top, begin, end);
    }
  }

  A* phase(int o, int64_t s) const {
    return phases + (o * t.pool.stride.w + s) * sizes.phase_size + sizes.before;
  }

  void conv_row(const A* x) const {
    const Pool& p = t.pool;
    const D d;
    const V none = hn::Set(d, -infinity<A>());
    for (int64_t s = 0; s < p.stride.w; ++s) {
      const int64_t count = (p.conv.w - s + p.stride.w - 1) / p.stride.w;
      for (int o = 0; o < kChannels; ++o) {
        A* row = phase(o, s);
        for (int64_t i = -sizes.before; i < 0; i += kLanes) hn::StoreU(none, d, row + i);
      }
      int64_t q = 0;
      for (; q + (kWide - 1) * kLanes < count; q += kWide * kLanes) conv_vectors<kWide>(x, s, q);
      if constexpr (kWide > 4) {
        for (; q + 3 * kLanes < count; q += 4 * kLanes) conv_vectors<4>(x, s, q);
      }
      for (; q + kLanes < count; q += 2 * kLanes) conv_vectors<2>(x, s, q);
      for (; q < count; q += kLanes) conv_vectors<1>(x, s, q);
      for (int o = 0; o < kChannels; ++o) {
        A* row = phase(o, s);
        int64_t i = larger(count, 0);
        for (; i % kLanes != 0; ++i) row[i] = -infinity<A>();
        for (; i < sizes.phase_size - sizes.before; i += kLanes) hn::StoreU(none, d, row + i);
      }
    }
  }

  template <int kVectors>
  HWY_NOINLINE void conv_vectors(const A* x, int64_t s, int64_t q) const {
    V sum[kChannels][kVectors];
    sums<1, 1, kVectors>(x + q, t.offsets + s, sum);
    CONVSHIP_UNROLL
    for (int o = 0; o < kChannels; ++o) {
      CONVSHIP_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        hn::StoreU(sum[o][v], D(), phase(o, s) + q + v * kLanes);
      }
    }
  }

  template <bool kIndex>
  V relu_if(V value) const {
    return kIndex && t.target.activation == Activation::relu ? relu(value) : value;
  }

  // Windows of channel o's conv row; an index is the column of the winner.
  template <bool kIndex>
  void pool_columns(int o, A* pooled, I* index) const {
    const D d;
    const DI di;
    const Pool& p = t.pool;
    for (int64_t q = 0; q < p.width; q += kLanes) {
      V best = hn::Set(d, -infinity<A>());
      // The first column of the window that is not padding.
      const auto first = hn::Sub(hn::Set(di, static_cast<I>(p.padding.w - q * p.stride.w)),
                                 hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<I>(p.stride.w))));
      auto winner = hn::Max(first, hn::Zero(di));
      for (int64_t i = 0; i < p.size.w; ++i) {
        // Column i - padding of the window, as a phase and a place in it.
        const int64_t column = i - p.padding.w + sizes.before * p.stride.w;
        const A* from = phase(o, column % p.stride.w) + column / p.stride.w - sizes.before + q;
        const V value = relu_if<kIndex>(hn::LoadU(d, from));
        if constexpr (kIndex) {
          const auto place = hn::Set(di, static_cast<I>(i));
          const auto wins =
              hn::And(hn::RebindMask(di, hn::Or(hn::Gt(value, best), hn::IsNaN(value))),
                      hn::Gt(place, first));
          winner = hn::IfThenElse(wins, place, winner);
        }
        best = max_of(best, value);
      }
      hn::Store(best, d, pooled + q);
      if constexpr (kIndex) hn::Store(winner, di, index + q);
    }
  }

  // Pooled row y of channel o from the row-pooled conv rows [begin, end).
  template <bool kIndex>
  void pool_window(int o, int64_t y, int64_t top, int64_t begin, int64_t end) const {
    const D d;
    const DI di;
    const Pool& p = t.pool;
    for (int64_t q = 0; q < p.width; q += kLanes) {
      V best = hn::Set(d, -infinity<A>());
      auto winner = hn::Zero(di);
      for (int64_t r = begin; r < end; ++r) {
        const int64_t slot = (r % p.size.h * kChannels + o) * sizes.pooled_size + q;
        const V value = hn::Load(d, ring + slot);
        if constexpr (kIndex) {
          const auto tap = hn::Add(hn::Load(di, ring_index + slot),
                                   hn::Set(di, static_cast<I>((r - top) * p.size.w)));
          const auto wins = hn::RebindMask(di, hn::Or(hn::Gt(value, best), hn::IsNaN(value)));
          winner = r == begin ? tap : hn::IfThenElse(wins, tap, winner);
        }
        best = max_of(best, value);
      }
      write(o, y, q, best);
      if constexpr (kIndex) write_index(o, y, q, winner);
    }
  }

  void write_index(int o, int64_t y, int64_t q, hn::Vec<DI> winner) const {
    const Target<A>& to = t.target;
    HWY_ALIGN I lanes[kLanes];
    hn::Store(winner, DI(), lanes);
    const int64_t at = (y - t.pool.begin) * t.pool.width + o * to.index_channel_step + q;
    for (int64_t i = 0; i < smaller(kLanes, t.pool.width - q); ++i) {
      if (to.narrow) to.narrow[at + i] = static_cast<uint8_t>(lanes[i]);
      if (to.wide) to.wide[at + i] = static_cast<int32_t>(lanes[i]);
    }
  }
};

// Output channels whose sums fill the registers, four vectors each.
constexpr int kColumnsChannels = kRegisters >= 32 ? 6 : 3;

template <int kChannels, typename A>
void columns_of(const ColumnsTask<A>& task) {
  if constexpr (kChannels > 1) {
    if (task.target.channels < kChannels) return columns_of<kChannels - 1>(task);
  }
  Columns<hn::ScalableTag<A>, kChannels>(task).run();
}

template <typename A>
void columns(const ColumnsTask<A>& task) {
  columns_of<kColumnsChannels>(task);
}
