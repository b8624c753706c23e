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

// Value i of the row goes to column left + i.
template <int kPhases, typename A>
void split_row(const ColumnsSplit<A>& t, const A* from, A* to) {
  using D = hn::ScalableTag<A>;
  constexpr int64_t kLanes = hn::MaxLanes(D());
  const int64_t phases = kPhases ? kPhases : t.phases;
  const int64_t count = smaller(t.image.w, phases * t.phase_size - t.left);
  int64_t i = 0;
  const auto one = [&] {
    const int64_t place = t.left + i;
    to[place % phases * t.phase_size + place / phases] = from[i * t.w_step];
    ++i;
  };
  if (kPhases == 1 || (kPhases > 1 && t.w_step == 1)) {
    constexpr int64_t kStep = larger(kPhases, 1) * kLanes;
    const auto step = [&] {
      A* const place = to + (t.left + i) / phases;
      if constexpr (kPhases == 1) {
        hn::StoreU(load_every(D(), from + i * t.w_step, t.w_step), D(), place);
      } else if constexpr (kPhases > 1) {
        split_vectors<kPhases>(D(), from + i, place, t.phase_size);
      }
    };
    while ((t.left + i) % phases != 0 && i < count) one();
    const int64_t first = i;
    for (; i + kStep <= count; i += kStep) step();
    // Some values once more rather than the last ones one by one.
    const int64_t last = count - kStep - (t.left + count) % phases;
    if (i > first && i < last + kStep) {
      i = last;
      step();
      i += kStep;
    }
  }
  while (i < count) one();
}

template <typename A>
void columns_split(const ColumnsSplit<A>& t) {
  const hn::ScalableTag<A> d;
  constexpr int64_t kLanes = hn::MaxLanes(hn::ScalableTag<A>());
  const int64_t row_size = t.phases * t.phase_size;
  A* to = t.to;
  for (int64_t c = 0; c < t.channels; ++c) {
    for (int64_t row = 0; row < t.rows; ++row, to += row_size) {
      const int64_t y = t.top + row;
      const bool inside = y >= 0 && y < t.image.h;
      // What these are too many, the row itself or the next one replaces.
      const auto clear = [&](int64_t begin, int64_t end) HWY_ATTR {
        for (int64_t i = begin; i < end; i += kLanes) {
          hn::StoreU(hn::Zero(d), d, to + i);
          asm("" : "+r"(i));  // compilers would call memset, for a few values
        }
      };
      if (inside && t.phases == 1) {
        clear(0, t.left);
        clear(smaller(t.left + t.image.w, row_size), row_size);
      } else {
        clear(0, row_size);
      }
      if (!inside) continue;
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
  for (int64_t i = 0; i < t.slack; i += kLanes) hn::StoreU(hn::Zero(d), d, to + i);
}

// kChannels output channels.
template <class D, int kChannels>
struct Columns {
  using A = hn::TFromD<D>;
  using V = hn::Vec<D>;
  using DI = hn::RebindToSigned<D>;
  using I = hn::TFromD<DI>;
  static constexpr int64_t kLanes = hn::MaxLanes(D());
  static constexpr int kWide = columns_wide(kChannels);

  const ColumnsTask<A>& t;
  const ColumnsScratch sizes;
  A* const joined;  // [kChannels][joined_size]: conv rows that are summed as one
  A* const rows;    // [kChannels][row_size]: a conv row, its margins around it
  A* const ring;    // [window row][kChannels][pooled_size]
  I* const ring_index;

  explicit Columns(const ColumnsTask<A>& task)
      : t(task),
        sizes(columns_scratch(task.pool, task.joined_rows, task.row_step, kChannels, kLanes)),
        joined(task.scratch),
        rows(joined + kChannels * sizes.joined_size),
        ring(task.ring),
        ring_index(reinterpret_cast<I*>(ring + t.pool.size.h * kChannels * sizes.pooled_size)) {}

  bool indexed() const { return t.target.narrow || t.target.wide; }

  void run() const {
    if (indexed()) {
      pool_rows<true>();
    } else if (pools_pairs(t.pool) && t.joined_rows == 0) {
      pool_in_registers();
    } else {
      pool_rows<false>();
    }
  }

  // Sums of kChannels x kRows x kVectors vectors: conv columns of kRows rows, kVectors
  // of them side by side.
  template <int kRows, int kVectors>
  HWY_INLINE void sums(const A* x, V (&sum)[kChannels][kRows * kVectors]) const {
    const D d;
    CONVSHIP_UNROLL
    for (int o = 0; o < kChannels; ++o) {
      CONVSHIP_UNROLL
      for (int i = 0; i < kRows * kVectors; ++i) sum[o][i] = hn::Set(d, t.bias[o]);
    }
    const A* starts[kRows];
    CONVSHIP_UNROLL
    for (int r = 0; r < kRows; ++r) {
      starts[r] = x + r * t.row_step;
      asm("" : "+r"(starts[r]));  // an address each, and no sum for every tap
    }
    const A* const end = t.weight + t.taps * kChannels;
    const int32_t* offset = t.offsets;
    for (const A* w = t.weight; w != end; w += kChannels, ++offset) {
      // Weights stay in registers and inputs pass: the other way around there
      // would be one register too few.
      V weight[kChannels];
      CONVSHIP_UNROLL
      for (int o = 0; o < kChannels; ++o) weight[o] = hn::Set(d, w[o]);
      CONVSHIP_UNROLL
      for (int i = 0; i < kRows * kVectors; ++i) {
        const int r = i / kVectors, v = i % kVectors;
        const V value = hn::LoadU(d, starts[r] + *offset + v * kLanes);
        CONVSHIP_UNROLL
        for (int o = 0; o < kChannels; ++o) sum[o][i] = hn::MulAdd(weight[o], value, sum[o][i]);
      }
    }
    CONVSHIP_UNROLL
    for (int o = 0; o < kChannels; ++o) {
      CONVSHIP_UNROLL
      for (int i = 0; i < kRows * kVectors; ++i) sum[o][i] = without_minus_zero(sum[o][i]);
    }
  }

  // 2x2 windows that do not overlap: of two rows, then of neighbouring columns.
  void pool_in_registers() const {
    const Pool& p = t.pool;
    for (int64_t y = p.begin; y < p.end; ++y) {
      const A* x = t.x + (2 * y - t.first_row) * t.row_step;
      int64_t q = 0;
      if constexpr (kChannels == 1) {
        for (; q + kLanes < p.width; q += 2 * kLanes) windows<2>(x, y, whole<2>(q));
      }
      for (; q < p.width; q += kLanes) windows<1>(x, y, whole<1>(q));
    }
  }

  // Where to begin so that a row's last windows fill kVectors vectors, if it has as many:
  // some are pooled twice.
  template <int kVectors>
  int64_t whole(int64_t q) const {
    return smaller(q, larger(t.pool.width - kVectors * kLanes, 0));
  }

  template <int kVectors>
  HWY_NOINLINE void windows(const A* x, int64_t y, int64_t q) const {
    constexpr int kColumns = 2 * kVectors;
    V sum[kChannels][2 * kColumns];
    sums<2, kColumns>(x + 2 * q, sum);
    CONVSHIP_UNROLL
    for (int o = 0; o < kChannels; ++o) {
      CONVSHIP_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const V a = max_of(sum[o][2 * v], sum[o][kColumns + 2 * v]);
        const V b = max_of(sum[o][2 * v + 1], sum[o][kColumns + 2 * v + 1]);
        const V best = max_of(hn::ConcatEven(D(), b, a), hn::ConcatOdd(D(), b, a));
        write(o, y, q + v * kLanes, best);
      }
    }
  }

  // A vector of pooled values to its place; activation comes last.
  HWY_INLINE void write(int o, int64_t y, int64_t q, V value) const {
    const Target<A>& to = t.target;
    const int64_t at = to.starts[o] + (y - t.pool.begin) * to.row_step + q * to.column_step;
    const int64_t exist = smaller(kLanes, t.pool.width - q);
    if (to.column_step != 1) return write_apart(at, exist, value);
    if (to.residual) value = hn::Add(value, load_some(D(), to.residual + at, exist));
    store_some(D(), activate(to.activation, value), to.y + at, exist);
  }

  HWY_NOINLINE void write_apart(int64_t at, int64_t exist, V value) const {
    const D d;
    const Target<A>& to = t.target;
    HWY_ALIGN A lanes[kLanes] = {};
    if (to.residual) {
      for (int64_t i = 0; i < exist; ++i) lanes[i] = to.residual[at + i * to.column_step];
      value = hn::Add(value, hn::Load(d, lanes));
    }
    hn::Store(activate(to.activation, value), d, lanes);
    for (int64_t i = 0; i < exist; ++i) to.y[at + i * to.column_step] = lanes[i];
  }

  // Any windows: conv rows into memory, then their maxima.
  template <bool kIndex>
  void pool_rows() const {
    const Pool& p = t.pool;
    const bool one = !kIndex && pools_nothing(p);
    const bool has_margins = p.padding.w > 0 || sizes.right > 0;
    const V none = hn::Set(D(), -infinity<A>());
    for (int o = 0; o < kChannels; ++o) {
      for (int64_t i = 0; i < p.padding.w; i += kLanes) hn::StoreU(none, D(), row(o) + i);
    }
    const int64_t last = conv_rows_end(p);
    int64_t next = p.done, first = 0, ready = 0;  // rows [first, ready) are joined
    for (int64_t y = p.begin; y < p.end; ++y) {
      const int64_t top = y * p.stride.h - p.padding.h;
      const int64_t begin = larger(top, 0);
      const int64_t end = smaller(top + p.size.h, p.conv.h);
      for (next = larger(next, begin); next < end; ++next) {
        if (t.joined_rows == 0) {
          conv_columns(t.x + (next - t.first_row) * t.row_step, p.conv.w, row(0) + p.padding.w,
                       sizes.row_size);
        } else {
          if (next >= ready) {
            first = next;
            ready = smaller(first + t.joined_rows, last);
            conv_columns(t.x + (first - t.first_row) * t.row_step,
                         (ready - first - 1) * t.row_step + p.conv.w, joined, sizes.joined_size);
          }
        }
        for (int o = 0; o < kChannels; ++o) {
          const A* sums = t.joined_rows == 0
                              ? row(o)
                              : joined + o * sizes.joined_size + (next - first) * t.row_step;
          if (one) {
            write_row(o, next, sums);
            continue;
          }
          if (has_margins) sums = with_margins(o, sums);
          const int64_t slot = (next % p.size.h * kChannels + o) * sizes.pooled_size;
          pool_columns<kIndex>(sums, ring + slot, ring_index + slot);
        }
      }
      if (one) continue;
      for (int o = 0; o < kChannels; ++o) pool_window<kIndex>(o, y, top, begin, end);
    }
  }

  A* row(int o) const { return rows + o * sizes.row_size; }

  // `count` sums that follow each other, of each channel; whole vectors are written.
  void conv_columns(const A* x, int64_t count, A* to, int64_t channel_step) const {
    int64_t q = 0;
    for (; q + (kWide - 1) * kLanes < count; q += kWide * kLanes) {
      conv_vectors<kWide>(x + q, to + q, channel_step);
    }
    if (q < count) rest_of_columns<kWide - 1>(x + q, count - q, to + q, channel_step);
  }

  template <int kVectors>
  void rest_of_columns(const A* x, int64_t count, A* to, int64_t channel_step) const {
    if constexpr (kVectors > 1) {
      if (count <= (kVectors - 1) * kLanes) {
        return rest_of_columns<kVectors - 1>(x, count, to, channel_step);
      }
    }
    conv_vectors<kVectors>(x, to, channel_step);
  }

  template <int kVectors>
  HWY_NOINLINE void conv_vectors(const A* x, A* to, int64_t channel_step) const {
    V sum[kChannels][kVectors];
    sums<1, kVectors>(x, sum);
    CONVSHIP_UNROLL
    for (int o = 0; o < kChannels; ++o) {
      CONVSHIP_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        hn::StoreU(sum[o][v], D(), to + o * channel_step + v * kLanes);
      }
    }
  }

  // A conv row where the margins that windows reach into are beside it.
  const A* with_margins(int o, const A* sums) const {
    const D d;
    const Pool& p = t.pool;
    A* const to = row(o) + p.padding.w;
    if (t.joined_rows > 0) {
      for (int64_t i = 0; i < p.conv.w; i += kLanes) hn::StoreU(hn::LoadU(d, sums + i), d, to + i);
    }
    const V none = hn::Set(d, -infinity<A>());
    for (int64_t i = 0; i < sizes.right; i += kLanes) hn::StoreU(none, d, to + p.conv.w + i);
    return row(o);
  }

  void write_row(int o, int64_t y, const A* sums) const {
    for (int64_t q = 0; q < t.pool.width; q += kLanes) write(o, y, q, hn::LoadU(D(), sums + q));
  }

  template <bool kIndex>
  V relu_if(V value) const {
    return kIndex && t.target.activation == Activation::relu ? relu(value) : value;
  }

  // Windows of a conv row with its margins; an index is the column of the winner.
  template <bool kIndex>
  void pool_columns(const A* sums, A* pooled, I* index) const {
    switch (t.pool.stride.w) {
      case 1:
        return pool_columns<kIndex, 1>(sums, pooled, index);
      case 2:
        return pool_columns<kIndex, 2>(sums, pooled, index);
      case 3:
        return pool_columns<kIndex, 3>(sums, pooled, index);
      case 4:
        return pool_columns<kIndex, 4>(sums, pooled, index);
      default:
        return pool_columns<kIndex, 0>(sums, pooled, index);
    }
  }

  // Of windows kStride apart, one column each or kStride of them.
  template <int kStride>
  HWY_INLINE void columns_of_windows(const A* from, V (&values)[4]) const {
    const D d;
    if constexpr (kStride == 0) {
      HWY_ALIGN A lanes[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) lanes[i] = from[i * t.pool.stride.w];
      values[0] = hn::Load(d, lanes);
    } else if constexpr (kStride == 1) {
      values[0] = hn::LoadU(d, from);
    } else if constexpr (kStride == 2) {
      hn::LoadInterleaved2(d, from, values[0], values[1]);
    } else if constexpr (kStride == 3) {
      hn::LoadInterleaved3(d, from, values[0], values[1], values[2]);
    } else {
      hn::LoadInterleaved4(d, from, values[0], values[1], values[2], values[3]);
    }
  }

  template <bool kIndex, int kStride>
  void pool_columns(const A* sums, A* pooled, I* index) const {
    constexpr int kAtOnce = kStride == 0 ? 1 : kStride;
    const D d;
    const DI di;
    const Pool& p = t.pool;
    for (int64_t q = 0; q < p.width; q += kLanes) {
      const A* window = sums + q * p.stride.w;
      V best = hn::Set(d, -infinity<A>());
      // The first column of the window that is not padding.
      const auto first = hn::Sub(hn::Set(di, static_cast<I>(p.padding.w - q * p.stride.w)),
                                 hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<I>(p.stride.w))));
      auto winner = hn::Max(first, hn::Zero(di));
      for (int64_t begin = 0; begin < p.size.w; begin += kAtOnce) {
        V values[4];
        columns_of_windows<kStride>(window + begin, values);
        CONVSHIP_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
          if (begin + i >= p.size.w) break;
          const V value = relu_if<kIndex>(values[i]);
          if constexpr (kIndex) {
            const auto place = hn::Set(di, static_cast<I>(begin + i));
            const auto wins =
                hn::And(hn::RebindMask(di, hn::Or(hn::Gt(value, best), hn::IsNaN(value))),
                        hn::Gt(place, first));
            winner = hn::IfThenElse(wins, place, winner);
          }
          best = max_of(best, value);
        }
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
