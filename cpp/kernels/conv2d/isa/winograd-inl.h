// Winograd's minimal filtering: kOut x kOut results of a kTaps x kTaps kernel
// from kReach x kReach multiplications, kReach = kOut + kTaps - 1.
// A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, 2015.
//
//   Y = A' [(G g G') . (B' d B)] A,  summed over input channels between the two
//
// For distinct points p of Cook and Toom, and infinity as the last one:
//   A'[k][p] = p^k,  G[p][j] = p^j / prod (p - other points),
//   B'[p] = coefficients of prod (x - other points).
// Points 0, +-5/8, +-3/2 keep the numbers of a 6-point transform near 1, where
// the textbook's 0, +-1, +-2 lose a digit. G is applied when weights are packed
// (winograd.cpp).

template <int kOut_, int kTaps_>
struct Winograd {
  static constexpr int kOut = kOut_;
  static constexpr int kTaps = kTaps_;
  static constexpr int kReach = kOut + kTaps - 1;
  static constexpr int kPoints = kReach * kReach;
  static_assert(kReach == 4 || kReach == 6);

  // d[0], d[step], ... kReach values, to as many points; in place.
  template <class V>
  static HWY_INLINE void to_points(V* d, int step) {
    const hn::DFromV<V> tag;
    if constexpr (kReach == 4) {
      const V d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
      d[0] = hn::Sub(d2, d0);
      d[step] = hn::Add(d2, d1);
      d[2 * step] = hn::Sub(d2, d1);
      d[3 * step] = hn::Sub(d3, d1);
    } else {
      const V aa = hn::Set(tag, kA * kA), bb = hn::Set(tag, kB * kB);
      const V both = hn::Set(tag, kA * kA * kB * kB), sum = hn::Set(tag, kA * kA + kB * kB);
      const V a = hn::Set(tag, kA), b = hn::Set(tag, kB);
      const V d0 = d[0], d1 = d[step], d2 = d[2 * step];
      const V d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
      d[0] = hn::MulAdd(both, d0, hn::NegMulAdd(sum, d2, d4));
      d[5 * step] = hn::MulAdd(both, d1, hn::NegMulAdd(sum, d3, d5));
      const V even_a = hn::NegMulAdd(bb, d2, d4), odd_a = hn::NegMulAdd(bb, d1, d3);
      d[step] = hn::MulAdd(a, odd_a, even_a);
      d[2 * step] = hn::NegMulAdd(a, odd_a, even_a);
      const V even_b = hn::NegMulAdd(aa, d2, d4), odd_b = hn::NegMulAdd(aa, d1, d3);
      d[3 * step] = hn::MulAdd(b, odd_b, even_b);
      d[4 * step] = hn::NegMulAdd(b, odd_b, even_b);
    }
  }

  // m[0], m[step], ... kReach points, to kOut results y[0], y[y_step], ...
  template <class V>
  static HWY_INLINE void from_points(const V* m, int step, V* y, int y_step) {
    const hn::DFromV<V> tag;
    const V m0 = m[0], s1 = hn::Add(m[step], m[2 * step]), d1 = hn::Sub(m[step], m[2 * step]);
    if constexpr (kReach == 4) {
      y[0] = hn::Add(m0, s1);
      y[y_step] = hn::Add(d1, m[3 * step]);
    } else {
      const V s2 = hn::Add(m[3 * step], m[4 * step]), d2 = hn::Sub(m[3 * step], m[4 * step]);
      const auto row = [&](double power_a, double power_b, V first, V second) {
        return hn::MulAdd(
            hn::Set(tag, static_cast<hn::TFromD<hn::DFromV<V>>>(power_a)), first,
            hn::Mul(hn::Set(tag, static_cast<hn::TFromD<hn::DFromV<V>>>(power_b)), second));
      };
      y[0] = hn::Add(m0, hn::Add(s1, s2));
      if constexpr (kOut == 2) {
        y[y_step] = hn::Add(row(kA, kB, d1, d2), m[5 * step]);
      } else {
        y[y_step] = row(kA, kB, d1, d2);
        y[2 * y_step] = row(kA * kA, kB * kB, s1, s2);
        y[3 * y_step] = hn::Add(row(kA * kA * kA, kB * kB * kB, d1, d2), m[5 * step]);
      }
    }
  }

  // The results of one tile, [kOut][kOut], from points `point_step` apart.
  template <class V, typename A>
  static HWY_INLINE void tile_results(const A* m, int64_t point_step, V* y) {
    const hn::DFromV<V> d;
    V half[kOut * kReach];
    CONVSHIP_UNROLL
    for (int j = 0; j < kReach; ++j) {
      V column[kReach];
      CONVSHIP_UNROLL
      for (int i = 0; i < kReach; ++i) column[i] = hn::Load(d, m + (i * kReach + j) * point_step);
      from_points(column, 1, half + j, kReach);
    }
    CONVSHIP_UNROLL
    for (int i = 0; i < kOut; ++i) from_points(half + i * kReach, 1, y + i * kOut, 1);
  }

 private:
  static constexpr float kA = 0.625f;
  static constexpr float kB = 1.5f;
};

// G g G' in double precision, rounded once. Plain loops over output channels,
// which the compiler gives to vectors.
template <class W, int kVectors, typename A>
void winograd_weights(const WinogradWeights<A>& t) {
  constexpr int kReach = W::kReach, kTaps = W::kTaps;
  constexpr int kBlock = kVectors * hn::MaxLanes(hn::ScalableTag<A>());
  for (int i = 0; i < W::kPoints * kBlock; ++i) t.magnitudes[i] = 0;
  for (int64_t c = 0; c < t.channels; ++c) {
    const A* w = t.taps + c * kTaps * kTaps * kBlock;
    double half[kReach * kTaps][kBlock];
    for (int i = 0; i < kReach; ++i) {
      for (int j = 0; j < kTaps; ++j) {
        double* to = half[i * kTaps + j];
        for (int o = 0; o < kBlock; ++o) to[o] = 0;
        for (int k = 0; k < kTaps; ++k) {
          const double factor = t.g[i * kTaps + k];
          const A* from = w + (k * kTaps + j) * kBlock;
          for (int o = 0; o < kBlock; ++o) to[o] += factor * static_cast<double>(from[o]);
        }
      }
    }
    for (int i = 0; i < kReach; ++i) {
      for (int j = 0; j < kReach; ++j) {
        double sum[kBlock] = {};
        for (int k = 0; k < kTaps; ++k) {
          const double factor = t.g[j * kTaps + k];
          for (int o = 0; o < kBlock; ++o) sum[o] += factor * half[i * kTaps + k][o];
        }
        const int point = i * kReach + j;
        A* to = t.u + point * t.point_step + c * kBlock;
        A* magnitude = t.magnitudes + point * kBlock;
        for (int o = 0; o < kBlock; ++o) {
          const A value = static_cast<A>(sum[o]);
          to[o] = value;
          magnitude[o] += value < 0 ? -value : value;
        }
      }
    }
  }
}

// The largest magnitude among the inputs seen, or infinity for NaN.
template <class W, typename A>
A winograd_input(const WinogradInput<A>& t) {
  using D = hn::ScalableTag<A>;
  using V = hn::Vec<D>;
  const D d;
  constexpr int64_t kLanes = hn::MaxLanes(D());
  constexpr int kReach = W::kReach;
  Interleave<A> part = t.source;
  part.columns = (t.tiles.w - 1) * W::kOut + kReach;
  part.rows = (t.tiles.h - 1) * W::kOut + kReach;
  V largest = hn::Zero(d);
  for (int64_t c = t.begin; c < t.end; c += kLanes) {
    ChannelRows<D> source{part, c};
    source.copy(t.scratch);
    largest = larger_magnitude(largest, source.largest);
    A* to = t.v + c * t.channel_step;
    for (int64_t y = 0; y < t.tiles.h; ++y) {
      for (int64_t x = 0; x < t.tiles.w; ++x, to += kLanes) {
        const A* from = t.scratch + (y * part.columns + x) * W::kOut * kLanes;
        V half[kReach * kReach];
        CONVSHIP_UNROLL
        for (int j = 0; j < kReach; ++j) {
          V column[kReach];
          CONVSHIP_UNROLL
          for (int i = 0; i < kReach; ++i) {
            column[i] = hn::Load(d, from + (i * part.columns + j) * kLanes);
          }
          W::to_points(column, 1);
          CONVSHIP_UNROLL
          for (int i = 0; i < kReach; ++i) half[i * kReach + j] = column[i];
        }
        CONVSHIP_UNROLL
        for (int i = 0; i < kReach; ++i) {
          W::to_points(half + i * kReach, 1);
          CONVSHIP_UNROLL
          for (int j = 0; j < kReach; ++j) {
            hn::Store(half[i * kReach + j], d, to + (i * kReach + j) * t.point_step);
          }
        }
      }
    }
  }
  HWY_ALIGN A lanes[kLanes];
  hn::Store(largest, d, lanes);
  A result = 0;
  for (int64_t i = 0; i < kLanes; ++i) {
    if (!(lanes[i] <= infinity<A>())) return infinity<A>();
    result = lanes[i] > result ? lanes[i] : result;
  }
  return result;
}

// m = v u for one point and one block of output channels.
template <typename A, int kVectors>
struct WinogradGemm {
  using D = hn::ScalableTag<A>;
  using V = hn::Vec<D>;
  static constexpr int64_t kLanes = hn::MaxLanes(D());
  static constexpr int64_t kBlock = kVectors * kLanes;
  static constexpr int kTile = (kRegisters - kVectors - 1) / kVectors;
  // Where sums, weights and a value take all registers, the last weight stays in memory.
  static constexpr int kLoaded = (kTile + 1) * kVectors + 1 == kRegisters ? kVectors - 1 : kVectors;
  // Sums of more input channels than this are added up in memory: a chain of
  // roundings as short as a direct sum's chunks.
  static constexpr int64_t kChain = 32;
  // Two chains of 32 even out too little: 64 channels keep the rule of
  // docs/accuracy.md by nothing. 32, 16 and 16 give it a margin.
  static constexpr int64_t kFewChannels = 80, kShortChain = 16;

  const WinogradProduct<A>& t;

  void run() const {
    const int64_t slice = t.channels * kBlock;
    const Tiles tiles(t.tiles, kTile);
    // With each vector of channels a little of the next slice.
    const int64_t each = t.prefetch ? (kLanes * kBlock + tiles.number - 1) / tiles.number : 0;
    for (int64_t point = 0; point < t.points; ++point) {
      for (int64_t b = 0; b < t.blocks; ++b) {
        const A* u = t.u + point * t.u_point_step + b * slice;
        const A* v = t.v + point * t.v_point_step;
        A* m = t.m + (b * t.points + point) * t.m_point_step;
        Ahead<A> ahead{b + 1 < t.blocks ? u + slice : t.u + (point + 1) * t.u_point_step, each};
        for (int64_t i = 0; i < tiles.number; ++i) {
          const int64_t now = tiles[i];
          pick_tile<kTile>(now, v, u, m, ahead);
          v += now * kLanes;
          m += now * kBlock;
        }
      }
    }
  }

  template <int kSize>
  void pick_tile(int64_t size, const A* v, const A* u, A* m, Ahead<A>& ahead) const {
    if constexpr (kSize > 1) {
      if (size < kSize) return pick_tile<kSize - 1>(size, v, u, m, ahead);
    }
    tile<kSize>(v, u, m, ahead);
  }

  template <int kSize>
  HWY_NOINLINE void tile(const A* v, const A* u, A* m, Ahead<A>& ahead) const {
    const D d;
    const int64_t channel_step = t.tiles * kLanes;
    const int64_t next = t.channels <= kFewChannels ? kShortChain : kChain;
    for (int64_t c = 0, end = smaller(kChain, t.channels); c < t.channels;
         c = end, end = smaller(c + next, t.channels)) {
      V sum[kSize][kVectors];
      CONVSHIP_UNROLL
      for (int j = 0; j < kSize; ++j) {
        CONVSHIP_UNROLL
        for (int k = 0; k < kVectors; ++k) sum[j][k] = hn::Zero(d);
      }
      for (int64_t i = c; i < end; i += kLanes, v += channel_step) {
        ahead.fetch();
        for (const A* x = v; x != v + kLanes; ++x, u += kBlock) {
          V weight[kLoaded];
          CONVSHIP_UNROLL
          for (int k = 0; k < kLoaded; ++k) weight[k] = hn::Load(d, u + k * kLanes);
          CONVSHIP_UNROLL
          for (int j = 0; j < kSize; ++j) {
            const V value = hn::Set(d, x[j * kLanes]);
            CONVSHIP_UNROLL
            for (int k = 0; k < kLoaded; ++k) {
              sum[j][k] = hn::MulAdd(value, weight[k], sum[j][k]);
            }
            if constexpr (kLoaded < kVectors) {
              sum[j][kLoaded] = hn::MulAdd(value, operand(d, u, kLoaded * kLanes), sum[j][kLoaded]);
            }
          }
        }
      }
      CONVSHIP_UNROLL
      for (int j = 0; j < kSize; ++j) {
        CONVSHIP_UNROLL
        for (int k = 0; k < kVectors; ++k) {
          A* to = m + (j * kVectors + k) * kLanes;
          hn::Store(c == 0 ? sum[j][k] : hn::Add(hn::Load(d, to), sum[j][k]), d, to);
        }
      }
    }
  }
};

template <typename A>
void winograd_product(const WinogradProduct<A>& task) {
  task.vectors == 2 ? WinogradGemm<A, 2>{task}.run() : WinogradGemm<A, 3>{task}.run();
}

template <class W, typename A, int kVectors>
struct WinogradBack {
  using D = hn::ScalableTag<A>;
  using V = hn::Vec<D>;
  using P = Pooling<D, kVectors>;
  static constexpr int64_t kLanes = P::kLanes;
  static constexpr int64_t kBlock = P::kBlock;
  static constexpr int kOut = W::kOut;

  const WinogradOutput<A>& t;

  int64_t tiles() const { return t.tiles.h * t.tiles.w; }

  void run() const {
    const Pool& p = t.pool;
    if (pools_nothing(p) && P(p, t.target, t.scratch).writes_directly()) {
      write_tiles();
    } else if (pools_pairs(p) && !t.target.residual) {
      pool_in_registers();
    } else {
      pool_rows();
    }
  }

  // A tile's conv results, bias added.
  HWY_INLINE void results(int64_t tile, int k, V* y) const {
    const D d;
    W::tile_results(t.m + tile * kBlock + k * kLanes, t.m_point_step, y);
    const V bias = hn::Load(d, t.bias + k * kLanes);
    CONVSHIP_UNROLL
    for (int i = 0; i < kOut * kOut; ++i) y[i] = hn::Add(y[i], bias);
  }

  // Without pooling, where channels adjoin: from registers to their place.
  void write_tiles() const {
    const D d;
    const Target<A>& to = t.target;
    const P writer(t.pool, to, t.scratch);
    for (int64_t tile = 0; tile < tiles(); ++tile) {
      const int64_t row = t.first_row + tile / t.tiles.w * kOut;
      const int64_t column = tile % t.tiles.w * kOut;
      const int64_t begin = larger(t.pool.begin - row, 0);
      const int64_t end = smaller(t.pool.end - row, kOut);
      const int64_t columns = smaller(t.pool.width - column, kOut);
      const int64_t at = (row - t.pool.begin) * to.row_step + column * to.column_step;
      for (int k = 0; k < kVectors; ++k) {
        const int64_t exist = writer.exist(k);
        if (exist == 0) break;
        V y[kOut * kOut];
        results(tile, k, y);
        const auto each = [&](const auto& visit) HWY_ATTR {
          CONVSHIP_UNROLL
          for (int i = 0; i < kOut * kOut; ++i) {
            const int64_t r = i / kOut, c = i % kOut;
            if (r < begin || r >= end || c >= columns) continue;
            visit(y[i], at + r * to.row_step + c * to.column_step + to.starts[k]);
          }
        };
        if (to.residual) {
          each([&](V& value, int64_t place)
                   HWY_ATTR { value = hn::Add(value, load_some(d, to.residual + place, exist)); });
        }
        activate_all<kOut * kOut>(to.activation, y);
        each([&](V& value, int64_t place) HWY_ATTR { store_some(d, value, to.y + place, exist); });
      }
    }
  }

  // 2x2 windows never cross a tile.
  void pool_in_registers() const {
    constexpr int kHalf = kOut / 2;
    const D d;
    const int64_t row_size = t.tiles.w * kHalf * kBlock;
    P writer(t.pool, t.target, t.scratch + kHalf * row_size);
    for (int64_t y = 0; y < t.tiles.h; ++y) {
      for (int64_t x = 0; x < t.tiles.w; ++x) {
        CONVSHIP_UNROLL
        for (int k = 0; k < kVectors; ++k) {
          V r[kOut * kOut];
          results(y * t.tiles.w + x, k, r);
          CONVSHIP_UNROLL
          for (int i = 0; i < kHalf; ++i) {
            CONVSHIP_UNROLL
            for (int j = 0; j < kHalf; ++j) {
              const V* corner = r + (2 * i) * kOut + 2 * j;
              const V best =
                  max_of(max_of(corner[0], corner[1]), max_of(corner[kOut], corner[kOut + 1]));
              hn::Store(activate(t.target.activation, best), d,
                        t.scratch + i * row_size + ((x * kHalf + j) * kVectors + k) * kLanes);
            }
          }
        }
      }
      CONVSHIP_UNROLL
      for (int i = 0; i < kHalf; ++i) {
        const int64_t row = t.first_row / 2 + y * kHalf + i;
        if (row < t.pool.begin || row >= t.pool.end) continue;
        writer.write_row(t.scratch + i * row_size,
                         t.target.y + (row - t.pool.begin) * t.target.row_step);
      }
    }
  }

  // All conv rows of the strip to memory, then windows of any kind.
  void pool_rows() const {
    const D d;
    const Pool& p = t.pool;
    const int64_t row_size = row_scratch(p, t.tiles.w * kOut, kBlock);
    A* const rows = t.scratch;
    for (int64_t tile = 0; tile < tiles(); ++tile) {
      CONVSHIP_UNROLL
      for (int k = 0; k < kVectors; ++k) {
        V y[kOut * kOut];
        results(tile, k, y);
        A* to = rows + tile / t.tiles.w * kOut * row_size +
                (p.padding.w + tile % t.tiles.w * kOut) * kBlock + k * kLanes;
        CONVSHIP_UNROLL
        for (int i = 0; i < kOut; ++i) {
          CONVSHIP_UNROLL
          for (int j = 0; j < kOut; ++j) {
            hn::Store(y[i * kOut + j], d, to + i * row_size + j * kBlock);
          }
        }
      }
    }
    P pooling(p, t.target, rows + t.tiles.h * kOut * row_size);
    pooling.run([&](int64_t r, A* to, typename P::I* index) {
      A* row = rows + (r - t.first_row) * row_size;
      pooling.fill_margins(row);
      pooling.pool_columns(row, to, index);
    });
  }
};

template <class W, typename A>
void winograd_output(const WinogradOutput<A>& task) {
  task.vectors == 2 ? WinogradBack<W, A, 2>{task}.run() : WinogradBack<W, A, 3>{task}.run();
}

template <class W, typename A>
void winograd_weights(const WinogradWeights<A>& task) {
  task.vectors == 2 ? winograd_weights<W, 2>(task) : winograd_weights<W, 3>(task);
}

template <class W, typename A>
constexpr WinogradLoops<A> kWinogradLoops = {
    .weights = winograd_weights<W, A>,
    .input = winograd_input<W, A>,
    .product = winograd_product<A>,
    .output = winograd_output<W, A>,
};
