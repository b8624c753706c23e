// Pooling, activation and writing of rows of conv results with output channels
// in the lanes: what follows the sums, whichever loop made them.

// One block of kVectors vectors of output channels. A conv row lies in memory
// as [columns][kVectors][lanes].
template <class D, int kVectors>
struct Pooling {
  using A = hn::TFromD<D>;
  using V = hn::Vec<D>;
  using DI = hn::RebindToSigned<D>;
  using I = hn::TFromD<DI>;
  static constexpr int64_t kLanes = hn::MaxLanes(D());
  static constexpr int64_t kBlock = kVectors * kLanes;

  const Pool& pool;
  const Target<A>& target;
  const int64_t slots;  // of the ring, each a row; at least as many as a window has
  A* const ring;        // row-pooled conv rows of a window
  I* const ring_index;  // the column of each one's winner
  A* const result;
  I* const result_index;
  const bool in_registers = finishes_in_registers(target);

  // ring, scratch: pooling_ring(), pooling_scratch() values.
  Pooling(const Pool& pool_, const Target<A>& target_, A* ring_, A* scratch)
      : Pooling(pool_, target_, pool_.size.h, ring_, scratch) {}

  Pooling(const Pool& pool_, const Target<A>& target_, int64_t slots_, A* ring_, A* scratch)
      : pool(pool_),
        target(target_),
        slots(slots_),
        ring(ring_),
        ring_index(reinterpret_cast<I*>(ring + kBlock * slots * pool.width)),
        result(scratch),
        result_index(reinterpret_cast<I*>(result + kBlock * pool.width)) {}

  // Both in one piece of memory.
  Pooling(const Pool& pool_, const Target<A>& target_, A* memory)
      : Pooling(pool_, target_, memory, memory + pooling_ring(pool_, kBlock)) {}

  // Whether vectors go straight to their place: channels lie side by side.
  bool writes_directly() const { return !indexed() && target.channel_step == 1; }

  // Channels of vector v.
  HWY_INLINE int64_t exist(int64_t v) const {
    return smaller(kLanes, larger(0, target.channels - v * kLanes));
  }

  // A column's sums, kColumns times, to their places, of which the residual has
  // the same. Of the vectors only the last may be short of channels.
  template <int kColumns>
  HWY_INLINE void finish(V (*sum)[kVectors], A* to) const {
    const D d;
    if (!in_registers) {
      unrolled_array<kColumns, kVectors>([&](auto j, auto v) CONVSHIP_INLINE {
        hn::Store(sum[j][v], d, result + j * kBlock + v * kLanes);
      });
      return finish_in_memory(kColumns, to);
    }
    const int64_t step = target.column_step;
    int64_t starts[kVectors];  // vectors may alias anything: here no store makes them new
    unrolled<kVectors>([&](auto v) CONVSHIP_INLINE { starts[v] = target.starts[v]; });
    if (target.residual) {
      const A* from = target.residual + (to - target.y);
      unrolled<kColumns>([&](auto j) CONVSHIP_INLINE {
        unrolled<kVectors>([&](auto v) CONVSHIP_INLINE {
          sum[j][v] = hn::Add(sum[j][v], hn::LoadU(d, from + starts[v]));
        });
        from = next(from, step);
      });
    }
    const auto each = [&](const auto& function) CONVSHIP_INLINE {
      unrolled_array<kColumns, kVectors>([&](auto j, auto v)
                                             CONVSHIP_INLINE { sum[j][v] = function(sum[j][v]); });
    };
    if (target.activation.kind == Activation::relu) {
      each([](V x) CONVSHIP_INLINE { return relu_of_sum(x); });
    } else if (target.activation.kind == Activation::relu6) {
      each([](V x) CONVSHIP_INLINE { return up_to_six(x); });
    } else if (target.activation.kind == Activation::hardswish) {
      each([](V x) CONVSHIP_INLINE { return Hardswish<D>()(x); });
    }
    unrolled<kColumns>([&](auto j) CONVSHIP_INLINE {
      unrolled<kVectors>([&](auto v) CONVSHIP_INLINE { hn::StoreU(sum[j][v], d, to + starts[v]); });
      to = next(to, step);
    });
  }

  // Whether finish() can do without memory: with it, each tile would align the stack and save
  // more registers.
  static bool finishes_in_registers(const Target<A>& to) {
    const Activation::Kind kind = to.activation.kind;
    return to.channels >= kBlock && (kind == Activation::none || kind == Activation::relu ||
                                     kind == Activation::relu6 || kind == Activation::hardswish);
  }

  // The same from `result`.
  HWY_NOINLINE void finish_in_memory(int64_t columns, A* to) const {
    const D d;
    const A* from = target.residual ? target.residual + (to - target.y) : nullptr;
    A* const end = result + columns * kBlock;
    const int64_t step = target.column_step;
    if (from) {
      for (A* sums = result; sums != end; sums += kBlock, from += step) {
        for (int v = 0; v < kVectors; ++v) {
          A* const sum = sums + v * kLanes;
          const V more = load_some(d, from + target.starts[v], exist(v));
          hn::Store(hn::Add(hn::Load(d, sum), more), d, sum);
        }
      }
    }
    activate_in_memory(d, target.activation, result, columns * kBlock);
    for (A* sums = result; sums != end; sums += kBlock, to += step) {
      for (int v = 0; v < kVectors; ++v) {
        store_some(d, hn::Load(d, sums + v * kLanes), to + target.starts[v], exist(v));
      }
    }
  }

  // A column further. Compilers would work out the addresses of all vectors of a tile ahead
  // of all of them, in memory, as registers are full of sums.
  template <typename Pointer>
  static HWY_INLINE Pointer next(Pointer column, int64_t step) {
    column += step;
    asm("" : "+r"(column));
    return column;
  }

  bool indexed() const { return target.narrow || target.wide; }

  // Where the ring has conv row r.
  int64_t slot_of(int64_t r) const { return r % slots * pool.width * kBlock; }

  // For each pooled row, row_pool(r, to, index) is called for each conv row
  // under it that was not seen before, and leaves that row's windows at `to`.
  template <class RowPool>
  void run(const RowPool& row_pool) const {
    int64_t next = pool.done;
    for (int64_t y = pool.begin; y < pool.end; ++y) {
      const int64_t top = y * pool.stride.h - pool.padding.h;
      const int64_t begin = larger(top, 0);
      const int64_t end = smaller(top + pool.size.h, pool.conv.h);
      for (next = larger(next, begin); next < end; ++next) {
        const int64_t slot = slot_of(next);
        row_pool(next, ring + slot, ring_index + slot);
      }
      if (indexed()) {
        pool_rows<true, 0>(y, begin, end);
      } else if (end - begin == 2) {
        pool_rows<false, 2>(y, begin, end);
      } else if (end - begin == 3) {
        pool_rows<false, 3>(y, begin, end);
      } else {
        pool_rows<false, 0>(y, begin, end);
      }
    }
  }

  // Columns left and right of a conv row, which windows may reach into.
  void fill_margins(A* row) const {
    const V none = hn::Set(D(), -infinity<A>());
    const int64_t left = pool.padding.w * kBlock;
    const int64_t right = pool.size.w * kBlock;
    A* end = row + left + pool.conv.w * kBlock;
    for (int64_t i = 0; i < left; i += kLanes) hn::Store(none, D(), row + i);
    for (int64_t i = 0; i < right; i += kLanes) hn::Store(none, D(), end + i);
  }

  // Windows of a conv row with margins.
  void pool_columns(const A* row, A* pooled, I* index) const {
    if (indexed()) {
      pool_columns<true, 0>(row, pooled, index);
    } else if (pool.size.w == 2) {
      pool_columns<false, 2>(row, pooled, index);
    } else if (pool.size.w == 3) {
      pool_columns<false, 3>(row, pooled, index);
    } else {
      pool_columns<false, 0>(row, pooled, index);
    }
  }

  // kSize: the window's width, 0 where it is not one of the usual ones. An
  // index is the column of the winner's tap.
  template <bool kIndex, int kSize>
  void pool_columns(const A* row, A* pooled, I* index) const {
    const D d;
    const DI di;
    const Pool& p = pool;
    for (int64_t q = 0; q < p.width; ++q) {
      const A* window = row + q * p.stride.w * kBlock;
      const int64_t inside = larger(0, p.padding.w - q * p.stride.w);
      CONVSHIP_UNROLL
      for (int64_t v = 0; v < kBlock; v += kLanes) {
        V best = relu_if<kIndex>(hn::Load(d, window + v));
        auto winner = hn::Set(di, static_cast<I>(inside));
        for (int64_t i = 1; i < (kSize ? kSize : p.size.w); ++i) {
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
    return kIndex && target.activation == Activation::relu ? relu(value) : value;
  }

  // Pooled row y from the row-pooled conv rows [begin, end).
  template <bool kIndex, int kCount>
  void pool_rows(int64_t y, int64_t begin, int64_t end) const {
    const D d;
    const DI di;
    const Pool& p = pool;
    const Target<A>& to = target;
    const int64_t top = y * p.stride.h - p.padding.h;
    const int64_t steps = p.width * kBlock;
    const int64_t count = kCount ? kCount : end - begin;
    const A* rows[kMostWindowRows];
    const I* indices[kMostWindowRows];
    for (int64_t k = 0; k < count; ++k) {
      const int64_t slot = slot_of(begin + k);
      rows[k] = ring + slot;
      indices[k] = ring_index + slot;
    }
    const bool direct = writes_directly();
    A* const y_row = to.y + (y - p.begin) * to.row_step;
    if (!kIndex && !to.residual) {
      if (!direct && to.column_step == 1 && p.width >= kLanes) {
        return pool_to_planes<kCount>(rows, count, y_row);
      }
      for (int v = 0; v < kVectors && exist(v) > 0; ++v) {
        if (direct) {
          pool_vector<kCount>(rows, count, v, exist(v), y_row + to.starts[v], to.column_step);
        } else {
          pool_vector<kCount>(rows, count, v, kLanes, result + v * kLanes, kBlock);
        }
      }
      if (!direct) write_row(result, y_row);
      return;
    }
    for (int64_t i = 0; i < steps; i += kLanes) {
      const int64_t v = i % kBlock / kLanes;
      if (exist(v) == 0) continue;
      V best = hn::Load(d, rows[0] + i);
      auto winner = hn::Set(di, static_cast<I>((begin - top) * p.size.w));
      if constexpr (kIndex) winner = hn::Add(winner, hn::Load(di, indices[0] + i));
      for (int64_t k = 1; k < (kCount ? kCount : count); ++k) {
        const V value = hn::Load(d, rows[k] + i);
        if constexpr (kIndex) {
          const auto wins = hn::Or(hn::Gt(value, best), hn::IsNaN(value));
          const auto tap = hn::Add(hn::Load(di, indices[k] + i),
                                   hn::Set(di, static_cast<I>((begin + k - top) * p.size.w)));
          winner = hn::IfThenElse(hn::RebindMask(di, wins), tap, winner);
        }
        best = max_of(best, value);
      }
      if (to.residual) best = hn::Add(best, residual(y, i));
      best = activate(to.activation, best);
      if (direct) {
        store_some(d, best, y_row + i / kBlock * to.column_step + to.starts[v], exist(v));
      } else {
        hn::Store(best, d, result + i);
      }
      if constexpr (kIndex) hn::Store(winner, di, result_index + i);
    }
    if (!direct) write_row(result, y_row);
    if constexpr (kIndex) write_index(y);
  }

  // A pooled row of vector v, its first `some` lanes to `to` and on, `step` apart. kCount, or
  // else `count`: row-pooled rows.
  template <int kCount>
  void pool_vector(
      const A* const* rows, int64_t count, int v, int64_t some, A* to, int64_t step) const {
    constexpr int64_t kColumns = 4;
    int64_t q = 0;
    for (; q + kColumns <= pool.width; q += kColumns) {
      to = pool_some<kCount, kColumns>(rows, count, q * kBlock + v * kLanes, some, to, step);
    }
    for (; q < pool.width; ++q) {
      to = pool_some<kCount, 1>(rows, count, q * kBlock + v * kLanes, some, to, step);
    }
  }

  template <int kCount, int kColumns>
  HWY_INLINE A* pool_some(
      const A* const* rows, int64_t count, int64_t at, int64_t some, A* to, int64_t step) const {
    const D d;
    V best[kColumns];
    pool_columns_of<kCount, kColumns>(rows, count, at, best);
    CONVSHIP_UNROLL
    for (int j = 0; j < kColumns; ++j, to += step) store_some(d, best[j], to, some);
    return to;
  }

  // The same where neighbouring columns adjoin: transposed in registers. The last tile may
  // begin early.
  template <int kCount>
  void pool_to_planes(const A* const* rows, int64_t count, A* y_row) const {
    const D d;
    for (int v = 0; v < kVectors && exist(v) > 0; ++v) {
      A* const plane = y_row + target.starts[v];
      for (int64_t next = 0; next < pool.width; next += kLanes) {
        const int64_t q = smaller(next, pool.width - kLanes);
        V tile[kLanes];
        pool_columns_of<kCount, kLanes>(rows, count, q * kBlock + v * kLanes, tile);
        transpose(d, tile);
        if (exist(v) == kLanes) {
          CONVSHIP_UNROLL
          for (int c = 0; c < kLanes; ++c)
            hn::StoreU(tile[c], d, plane + c * target.channel_step + q);
        } else {
          for (int64_t c = 0; c < exist(v); ++c) {
            hn::StoreU(tile[c], d, plane + c * target.channel_step + q);
          }
        }
      }
    }
  }

  // The maxima of kColumns columns, activated.
  template <int kCount, int kColumns>
  HWY_INLINE void pool_columns_of(const A* const* rows, int64_t count, int64_t at, V* best) const {
    const D d;
    CONVSHIP_UNROLL
    for (int j = 0; j < kColumns; ++j) best[j] = hn::Load(d, rows[0] + at + j * kBlock);
    for (int64_t k = 1; k < (kCount ? kCount : count); ++k) {
      const A* const row = rows[k] + at;
      CONVSHIP_UNROLL
      for (int j = 0; j < kColumns; ++j) best[j] = max_of(best[j], hn::Load(d, row + j * kBlock));
    }
    activate_all<kColumns>(target.activation, best);
  }

  V residual(int64_t y, int64_t i) const {
    const D d;
    const Target<A>& to = target;
    const int64_t v = i % kBlock / kLanes;
    const A* from =
        to.residual + (y - pool.begin) * to.row_step + i / kBlock * to.column_step + to.starts[v];
    if (to.channel_step == 1) return load_some(d, from, exist(v));
    HWY_ALIGN A lanes[kLanes] = {};
    for (int64_t c = 0; c < exist(v); ++c) lanes[c] = from[c * to.channel_step];
    return hn::Load(d, lanes);
  }

  // A row of results [column][kVectors][lanes] to its place.
  void write_row(const A* row, A* y_row) const {
    const Target<A>& to = target;
    for (int64_t v = 0; v < kVectors && exist(v) > 0; ++v) {
      write_transposed<D>(row + v * kLanes, kBlock, pool.width, exist(v), y_row + to.starts[v],
                          to.channel_step, to.column_step);
    }
  }

  void write_index(int64_t y) const {
    const Target<A>& to = target;
    const int64_t at = (y - pool.begin) * pool.width;
    for (int64_t c = 0; c < to.channels; ++c) {
      for (int64_t q = 0; q < pool.width; ++q) {
        const int64_t place = at + c * to.index_channel_step + q;
        const I value = result_index[q * kBlock + c];
        if (to.narrow) to.narrow[place] = static_cast<uint8_t>(value);
        if (to.wide) to.wide[place] = static_cast<int32_t>(value);
      }
    }
  }
};
