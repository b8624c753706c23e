// Attention over vectors of floats: scores have keys in the lanes, their results channels.
// Both are products of rows by a packed matrix, summed term by term in its order: whatever
// the tile, a sum is one chain. Included once by each file that is compiled for an
// instruction set of its own, behind layers-inl.h.

// Columns of a packed matrix that lie side by side, [columns / kPanel][terms][kPanel].
constexpr int64_t kPanel = 2 * kF;
static_assert(AttendTask::kMostPanel % kPanel == 0);
// Rows of a tile: with a panel's two vectors, enough sums to hide a multiply-add's latency,
// and few enough for the registers.
constexpr int kTileRows = kRegisters >= 32 ? 8 : 6;

constexpr int64_t in_panels(int64_t columns) { return (columns + kPanel - 1) / kPanel * kPanel; }

// Whether vectors of a head's channels lie in a block each.
constexpr bool has_whole_blocks(int64_t depth) { return depth % kPixel == 0; }

// Of a head, channel c at the first position.
template <typename T>
HWY_INLINE T* channel_of(const HeadView<T>& x, int64_t c) {
  const int64_t at = x.lane + c;
  return x.data + at / kPixel * x.block + at % kPixel;
}

void pack_keys(const AttendTask& t) {
  const F d;
  const bool whole = has_whole_blocks(t.depth);
  const int64_t keys = t.keys, *const places = t.places;  // stores could change t's
  for (int64_t first = 0; first < keys; first += kPanel) {
    float* const panel = t.packed_keys + first * t.depth;
    for (int64_t c = 0; c < t.depth; c += whole ? kF : 1) {
      const float* const from = channel_of(t.k, c);
      float* const to = panel + c * kPanel;
      if (!whole) {
        for (int64_t i = 0; i < kPanel; ++i) {
          to[i] = first + i < keys ? from[places[first + i]] : 0.0f;
        }
        continue;
      }
      for (int64_t half = 0; half < kPanel; half += kF) {
        FV rows[kF];
        CONVSHIP_UNROLL
        for (int64_t i = 0; i < kF; ++i) {
          const int64_t key = first + half + i;
          rows[i] = key < keys ? hn::LoadU(d, from + places[key]) : hn::Zero(d);
        }
        transpose(d, rows);
        CONVSHIP_UNROLL
        for (int64_t i = 0; i < kF; ++i) hn::StoreU(rows[i], d, to + i * kPanel + half);
      }
    }
  }
}

void pack_values(const AttendTask& t) {
  const F d;
  const bool whole = has_whole_blocks(t.value_depth);
  const int64_t keys = t.keys, *const places = t.places;
  for (int64_t c = 0; c < in_panels(t.value_depth); c += whole ? kF : 1) {
    float* const to = t.packed_values + c / kPanel * kPanel * keys + c % kPanel;
    if (c >= t.value_depth) {
      for (int64_t i = 0; i < keys * kPanel; i += kPanel) {
        if (whole) hn::StoreU(hn::Zero(d), d, to + i);
        if (!whole) to[i] = 0.0f;
      }
      continue;
    }
    const float* const from = channel_of(t.v, c);
    for (int64_t i = 0; i < keys; ++i) {
      if (whole) hn::StoreU(hn::LoadU(d, from + places[i]), d, to + i * kPanel);
      if (!whole) to[i * kPanel] = from[places[i]];
    }
  }
}

// y[i] = factor[i] * sum of a[i][k] * b[k], for some rows i and one panel of b.
struct RowsByPanel {
  const float* const* a;
  int64_t a_block;  // step from 16 terms to the next 16
  const float* b;
  int64_t terms;
  const float* factor;
  float* const* y;
  int64_t y_at;      // the panel's first column
  int64_t y_vector;  // step from its first vector to its second
};

template <int kRows, int kVectors>
HWY_NOINLINE void multiply_tile(const RowsByPanel& t) {
  const F d;
  FV sum[kRows][kVectors];
  const float* a[kRows];
  CONVSHIP_UNROLL
  for (int i = 0; i < kRows; ++i) {
    a[i] = t.a[i];
    CONVSHIP_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::Zero(d);
  }
  const float* b = t.b;
  const int64_t a_block = t.a_block;
  const auto add = [&](int64_t k) HWY_ATTR {
    FV column[kVectors];
    CONVSHIP_UNROLL
    for (int v = 0; v < kVectors; ++v) column[v] = hn::LoadU(d, b + v * kF);
    CONVSHIP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const FV value = hn::Set(d, a[i][k]);
      CONVSHIP_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::MulAdd(value, column[v], sum[i][v]);
    }
    b += kPanel;
  };
  int64_t left = t.terms;
  for (; left >= kPixel; left -= kPixel) {
    for (int64_t k = 0; k < kPixel; k += 4) {
      CONVSHIP_UNROLL
      for (int64_t j = 0; j < 4; ++j) add(k + j);
    }
    CONVSHIP_UNROLL
    for (int i = 0; i < kRows; ++i) a[i] += a_block;
  }
  for (int64_t k = 0; k < left; ++k) add(k);
  CONVSHIP_UNROLL
  for (int i = 0; i < kRows; ++i) {
    const FV factor = hn::Set(d, t.factor[i]);
    float* const y = t.y[i] + t.y_at;
    CONVSHIP_UNROLL
    for (int v = 0; v < kVectors; ++v)
      hn::StoreU(hn::Mul(sum[i][v], factor), d, y + v * t.y_vector);
  }
}

// Of `rows` rows, at most kRows.
template <int kRows>
HWY_INLINE void multiply_rows(const RowsByPanel& t, int64_t rows, int64_t columns) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return multiply_rows<kRows - 1>(t, rows, columns);
  }
  columns > kF ? multiply_tile<kRows, 2>(t) : multiply_tile<kRows, 1>(t);
}

void multiply(RowsByPanel t, int64_t rows, int64_t columns) {
  const Tiles tiles(rows, kTileRows);
  for (int64_t i = 0; i < tiles.number; ++i) {
    multiply_rows<kTileRows>(t, tiles[i], columns);
    t.a += tiles[i];
    t.factor += tiles[i];
    t.y += tiles[i];
  }
}

// exp(score + bias), relative to the largest, in place of scores; returns 1 / their sum. One
// NaN or +inf makes that NaN, and so does a row of -inf.
HWY_INLINE float exponentials(const AttendTask& t, float* scores, const float* bias) {
  const F d;
  const FV none = hn::Set(d, -infinity<float>()), lowest = hn::Set(d, -87.0f);
  const int64_t keys = t.keys;
  const float* const bias_end = t.bias_end;
  FV most = none;
  for (int64_t k = 0; k < keys; k += kF) {
    FV score = hn::LoadU(d, scores + k);
    // Into the next row, if there is one: parts of vectors are slow to load.
    if (bias) score = hn::Add(score, load_some(d, bias + k, bias_end - (bias + k)));
    if (keys - k < kF) {
      score = hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(keys - k)), score, none);
    }
    hn::StoreU(score, d, scores + k);
    most = hn::Max(most, score);
  }
  most = hn::MaxOfLanes(d, most);
  FV sum = hn::Zero(d);
  for (int64_t k = 0; k < keys; k += kF) {
    const FV difference = hn::Sub(hn::LoadU(d, scores + k), most);
    // NaN stays, as the second operand.
    const FV power = exp(d, hn::Max(lowest, difference));
    const FV share = hn::IfThenZeroElse(hn::Lt(difference, lowest), power);
    sum = hn::Add(sum, share);
    hn::StoreU(share, d, scores + k);
  }
  return 1.0f / hn::GetLane(hn::SumOfLanes(d, sum));
}

// Queries [first, first + count) at most AttendTask::kQueries: their scores stay in the
// nearest caches, and a panel of keys serves all of them.
void attend_queries(const AttendTask& t, int64_t first, int64_t count) {
  constexpr int64_t kQueries = AttendTask::kQueries;
  const int64_t* const places = t.places + first;
  // A line more than what is needed: with a power of two of keys, rows would all want the
  // same lines of the first-level cache.
  const int64_t row = in_panels(t.keys) + kPixel;
  const float* a[kQueries];
  float* y[kQueries];
  float factor[kQueries];

  const bool in_place = has_whole_blocks(t.depth);
  const int64_t packed = (t.depth + kPixel - 1) / kPixel * kPixel;
  for (int64_t c = 0; !in_place && c < t.depth; ++c) {
    const float* const from = channel_of(t.q, c);
    for (int64_t i = 0; i < count; ++i) t.packed_queries[i * packed + c] = from[places[i]];
  }
  for (int64_t i = 0; i < count; ++i) {
    a[i] = in_place ? t.q.data + places[i] : t.packed_queries + i * packed;
    y[i] = t.scores + i * row;
    factor[i] = t.scale;
  }
  for (int64_t key = 0; key < t.keys; key += kPanel) {
    multiply({a, in_place ? t.q.block : kPixel, t.packed_keys + key * t.depth, t.depth, factor, y,
              key, kF},
             count, t.keys - key);
  }

  const bool to_place = has_whole_blocks(t.value_depth);
  const int64_t results = in_panels(t.value_depth);
  for (int64_t i = 0; i < count; ++i) {
    const float* const bias = t.bias ? t.bias + (first + i) * t.keys : nullptr;
    factor[i] = exponentials(t, y[i], bias);
    a[i] = y[i];
    y[i] = to_place ? t.y.data + places[i] : t.results + i * results;
  }
  for (int64_t c = 0; c < t.value_depth; c += kPanel) {
    const int64_t at = to_place ? c / kPixel * t.y.block + c % kPixel : c;
    multiply({a, kPixel, t.packed_values + c * t.keys, t.keys, factor, y, at,
              to_place && kF >= kPixel ? t.y.block : kF},
             count, t.value_depth - c);
  }
  if (to_place) return;
  for (int64_t c = 0; c < t.value_depth + t.padding; ++c) {
    float* const to = channel_of(t.y, c);
    for (int64_t i = 0; i < count; ++i) {
      to[places[i]] = c < t.value_depth ? t.results[i * results + c] : 0.0f;
    }
  }
}

void attend_layer(const AttendTask& t) {
  pack_keys(t);
  pack_values(t);
  const Tiles groups(t.end - t.begin, AttendTask::kQueries);
  int64_t first = t.begin;
  for (int64_t i = 0; i < groups.number; ++i) {
    attend_queries(t, first, groups[i]);
    first += groups[i];
  }
}
