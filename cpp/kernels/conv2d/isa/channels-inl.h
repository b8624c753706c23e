// Output channels in the lanes: see cpp/kernels/README.md. Included once by
// each file that is compiled for an instruction set of its own.

// hpool: how a conv row becomes a pooled row.
enum class RowPool {
  none,   // windows one column wide: the row as it is
  pairs,  // 2 columns, step 2, no padding: in registers
  any,
};

template <class D, int kVectors>
struct Channels {
  using A = hn::TFromD<D>;
  using V = hn::Vec<D>;
  using DI = hn::RebindToSigned<D>;
  using I = hn::TFromD<DI>;
  static constexpr int64_t kLanes = hn::MaxLanes(D());
  static constexpr int64_t kBlock = kVectors * kLanes;
  // Accumulators, the weights of a tap and one input fill the registers.
  static constexpr int kTile = (kRegisters - kVectors - 1) / kVectors / 2 * 2;

  const ChannelsTask<A>& t;
  A* const row;  // of the conv result, with margins
  A* const ring;
  I* const ring_index;
  A* const result;
  I* const result_index;

  explicit Channels(const ChannelsTask<A>& task)
      : t(task),
        row(task.scratch),
        ring(row + kBlock * (task.pool.conv.w + 2 * task.pool.size.w + task.pool.padding.w)),
        ring_index(reinterpret_cast<I*>(ring + kBlock * task.pool.size.h * task.pool.width)),
        result(ring + 2 * kBlock * task.pool.size.h * task.pool.width),
        result_index(reinterpret_cast<I*>(result + kBlock * task.pool.width)) {}

  bool indexed() const { return t.target.narrow || t.target.wide; }

  RowPool row_pool() const {
    const Pool& p = t.pool;
    if (indexed()) return RowPool::any;
    if (p.size.w == 1 && p.stride.w == 1) return RowPool::none;
    const bool pairs = p.size.w == 2 && p.stride.w == 2 && p.padding.w == 0;
    return pairs && 2 * p.width <= p.conv.w ? RowPool::pairs : RowPool::any;
  }

  void run() const {
    const Pool& p = t.pool;
    const RowPool how = row_pool();
    if (how == RowPool::any) fill_margins();
    int64_t next = 0;
    for (int64_t y = p.begin; y < p.end; ++y) {
      const int64_t top = y * p.stride.h - p.padding.h;
      const int64_t begin = larger(top, 0);
      const int64_t end = smaller(top + p.size.h, p.conv.h);
      for (next = larger(next, begin); next < end; ++next) {
        const int64_t slot = next % p.size.h * p.width * kBlock;
        conv_row(next, how, ring + slot, ring_index + slot);
      }
      if (indexed()) {
        pool_rows<true>(y, begin, end);
      } else {
        pool_rows<false>(y, begin, end);
      }
    }
  }

  // Columns left and right of the conv result, which windows may reach into.
  void fill_margins() const {
    const V none = hn::Set(D(), -infinity<A>());
    const int64_t left = t.pool.padding.w * kBlock;
    const int64_t right = t.pool.size.w * kBlock;
    A* end = row + left + t.pool.conv.w * kBlock;
    for (int64_t i = 0; i < left; i += kLanes) hn::Store(none, D(), row + i);
    for (int64_t i = 0; i < right; i += kLanes) hn::Store(none, D(), end + i);
  }

  // Sums and row-pools conv row r.
  void conv_row(int64_t r, RowPool how, A* pooled, I* index) const {
    const Pool& p = t.pool;
    const A* x = t.source.x + (r - t.source.first_row) * t.source.row_step;
    if (how == RowPool::pairs) {
      tiles<true>(x, p.width, pooled);
    } else if (how == RowPool::none) {
      tiles<false>(x, p.width, pooled);
    } else {
      const int64_t reach = (p.width - 1) * p.stride.w - p.padding.w + p.size.w;
      tiles<false>(x, smaller(reach, p.conv.w), row + p.padding.w * kBlock);
      if (indexed()) {
        pool_columns<true>(pooled, index);
      } else {
        pool_columns<false>(pooled, index);
      }
    }
  }

  // `count` results (columns, or pairs of them), in tiles of nearly equal size:
  // a narrow last tile would have too few independent sums.
  template <bool kPairs>
  void tiles(const A* x, int64_t count, A* to) const {
    constexpr int64_t kMost = kPairs ? kTile / 2 : kTile;
    const int64_t number = (count + kMost - 1) / kMost;
    const int64_t size = count / number;
    const int64_t larger_ones = count % number;
    const int64_t step = (kPairs ? 2 : 1) * t.source.column_step;
    for (int64_t i = 0; i < number; ++i) {
      const int64_t now = size + (i < larger_ones ? 1 : 0);
      pick_tile<kPairs, kMost>(now, x, to);
      x += now * step;
      to += now * kBlock;
    }
  }

  template <bool kPairs, int kSize>
  void pick_tile(int64_t size, const A* x, A* to) const {
    if constexpr (kSize > 1) {
      if (size < kSize) return pick_tile<kPairs, kSize - 1>(size, x, to);
    }
    if (t.source.column_step == 1) {
      tile<kPairs, kSize, 1>(x, to);
    } else {
      tile<kPairs, kSize, 0>(x, to);
    }
  }

  // kStep: column_step where it is known, else 0.
  template <bool kPairs, int kSize, int kStep>
  HWY_NOINLINE void tile(const A* x, A* to) const {
    constexpr int kColumns = kPairs ? 2 * kSize : kSize;
    const D d;
    const int64_t step = kStep ? kStep : t.source.column_step;
    V sum[kColumns][kVectors];
    for (int j = 0; j < kColumns; ++j) {
      for (int v = 0; v < kVectors; ++v) sum[j][v] = hn::Load(d, t.bias + v * kLanes);
    }
    const A* w = t.weight;
    const int32_t* offset = t.source.offsets;
    for (const int32_t* last = offset + t.source.taps; offset != last; ++offset) {
      V weight[kVectors];
      for (int v = 0; v < kVectors; ++v) weight[v] = hn::Load(d, w + v * kLanes);
      w += kBlock;
      const A* from = x + *offset;
      for (int j = 0; j < kColumns; ++j) {
        const V value = hn::Set(d, from[j * step]);
        for (int v = 0; v < kVectors; ++v) {
          sum[j][v] = hn::MulAdd(value, weight[v], sum[j][v]);
        }
      }
    }
    for (int j = 0; j < kSize; ++j) {
      for (int v = 0; v < kVectors; ++v) {
        const V value = kPairs ? max_of(sum[2 * j][v], sum[2 * j + 1][v]) : sum[j][v];
        hn::Store(value, d, to + (j * kVectors + v) * kLanes);
      }
    }
  }

  // Windows of the conv row; an index is the column of the winner's tap.
  template <bool kIndex>
  void pool_columns(A* pooled, I* index) const {
    const D d;
    const DI di;
    const Pool& p = t.pool;
    for (int64_t q = 0; q < p.width; ++q) {
      const A* window = row + q * p.stride.w * kBlock;
      const int64_t inside = larger(0, p.padding.w - q * p.stride.w);
      for (int64_t v = 0; v < kBlock; v += kLanes) {
        V best = relu_if<kIndex>(hn::Load(d, window + v));
        auto winner = hn::Set(di, static_cast<I>(inside));
        for (int64_t i = 1; i < p.size.w; ++i) {
          const V value = relu_if<kIndex>(hn::Load(d, window + i * kBlock + v));
          if constexpr (kIndex) {
            if (i > inside) {
              const auto wins = hn::Or(hn::Gt(value, best), hn::IsNaN(value));
              winner =
                  hn::IfThenElse(hn::RebindMask(di, wins), hn::Set(di, static_cast<I>(i)), winner);
            }
          }
          best = max_of(best, value);
        }
        hn::Store(best, d, pooled + q * kBlock + v);
        if constexpr (kIndex) hn::Store(winner, di, index + q * kBlock + v);
      }
    }
  }

  // With an index, activation comes first, as in torch: ties among zeros.
  template <bool kIndex>
  V relu_if(V value) const {
    return kIndex && t.target.relu ? relu(value) : value;
  }

  // Pooled row y from the row-pooled conv rows [begin, end).
  template <bool kIndex>
  void pool_rows(int64_t y, int64_t begin, int64_t end) const {
    const D d;
    const DI di;
    const Pool& p = t.pool;
    const Target<A>& to = t.target;
    const int64_t top = y * p.stride.h - p.padding.h;
    const int64_t steps = p.width * kBlock;
    // Vectors go straight to their place where channels lie side by side.
    const bool direct = !kIndex && to.channel_step == 1 && to.channels == kBlock;
    A* const y_row = to.y + (y - p.begin) * to.row_step;
    for (int64_t i = 0; i < steps; i += kLanes) {
      V best = hn::Load(d, ring + begin % p.size.h * steps + i);
      auto winner = hn::Set(di, static_cast<I>((begin - top) * p.size.w));
      if constexpr (kIndex) {
        winner = hn::Add(winner, hn::Load(di, ring_index + begin % p.size.h * steps + i));
      }
      for (int64_t r = begin + 1; r < end; ++r) {
        const int64_t slot = r % p.size.h * steps + i;
        const V value = hn::Load(d, ring + slot);
        if constexpr (kIndex) {
          const auto wins = hn::Or(hn::Gt(value, best), hn::IsNaN(value));
          const auto tap = hn::Add(hn::Load(di, ring_index + slot),
                                   hn::Set(di, static_cast<I>((r - top) * p.size.w)));
          winner = hn::IfThenElse(hn::RebindMask(di, wins), tap, winner);
        }
        best = max_of(best, value);
      }
      if (to.residual) best = hn::Add(best, residual(y, i));
      if (to.relu) best = relu(best);
      if (direct) {
        hn::StoreU(best, d, y_row + i / kBlock * to.column_step + to.starts[i % kBlock / kLanes]);
      } else {
        hn::Store(best, d, result + i);
      }
      if constexpr (kIndex) hn::Store(winner, di, result_index + i);
    }
    if (!direct) write_row(y_row);
    if constexpr (kIndex) write_index(y);
  }

  V residual(int64_t y, int64_t i) const {
    const D d;
    const Target<A>& to = t.target;
    const int64_t v = i % kBlock / kLanes;
    const A* from =
        to.residual + (y - t.pool.begin) * to.row_step + i / kBlock * to.column_step + to.starts[v];
    const int64_t exist = smaller(kLanes, to.channels - v * kLanes);
    if (to.channel_step == 1 && exist == kLanes) return hn::LoadU(d, from);
    HWY_ALIGN A lanes[kLanes] = {};
    for (int64_t c = 0; c < exist; ++c) lanes[c] = from[c * to.channel_step];
    return hn::Load(d, lanes);
  }

  void write_row(A* y_row) const {
    const Target<A>& to = t.target;
    for (int64_t v = 0; v < kVectors; ++v) {
      const int64_t exist = smaller(kLanes, to.channels - v * kLanes);
      if (exist <= 0) break;
      write_transposed<D>(result + v * kLanes, kBlock, t.pool.width, exist, y_row + to.starts[v],
                          to.channel_step, to.column_step);
    }
  }

  void write_index(int64_t y) const {
    const Target<A>& to = t.target;
    const int64_t at = (y - t.pool.begin) * t.pool.width;
    for (int64_t c = 0; c < to.channels; ++c) {
      for (int64_t q = 0; q < t.pool.width; ++q) {
        const int64_t place = at + c * to.index_channel_step + q;
        const I value = result_index[q * kBlock + c];
        if (to.narrow) to.narrow[place] = static_cast<uint8_t>(value);
        if (to.wide) to.wide[place] = static_cast<int32_t>(value);
      }
    }
  }
};

template <typename A>
void channels(const ChannelsTask<A>& task) {
  if (task.vectors == 1) {
    Channels<hn::ScalableTag<A>, 1>(task).run();
  } else {
    Channels<hn::ScalableTag<A>, 2>(task).run();
  }
}
