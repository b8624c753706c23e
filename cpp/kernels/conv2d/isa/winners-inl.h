// The two sums behind the gradients of a convolution of which only the winners
// of pooling windows have a gradient: see winners.h.

// R rows of V vectors of one output channel's weights stay in registers while
// all winners pass.
template <class D, int R, int V>
struct Winners {
  using A = hn::TFromD<D>;
  static constexpr int64_t kLanes = hn::MaxLanes(D());

  static HWY_NOINLINE void weights(const WinnersTask<A>& t, int64_t row) {
    const D d;
    hn::Vec<D> sum[R][V];
    A* const to = t.weight + row * t.weight_step;
    CONVSHIP_UNROLL
    for (int r = 0; r < R; ++r) {
      CONVSHIP_UNROLL
      for (int v = 0; v < V; ++v) sum[r][v] = hn::Load(d, to + r * t.weight_step + v * kLanes);
    }
    const A* const x = t.image + row * t.image_step;
    for (int64_t i = 0; i < t.count; ++i) {
      const A* from = x + t.places[i];
      const auto grad = hn::Set(d, t.grads[i]);
      CONVSHIP_UNROLL
      for (int r = 0; r < R; ++r) {
        CONVSHIP_UNROLL
        for (int v = 0; v < V; ++v) {
          sum[r][v] =
              hn::MulAdd(grad, hn::LoadU(d, from + r * t.image_step + v * kLanes), sum[r][v]);
        }
      }
    }
    CONVSHIP_UNROLL
    for (int r = 0; r < R; ++r) {
      CONVSHIP_UNROLL
      for (int v = 0; v < V; ++v) hn::Store(sum[r][v], d, to + r * t.weight_step + v * kLanes);
    }
  }

  static HWY_NOINLINE void image(const WinnersTask<A>& t, int64_t row) {
    const D d;
    hn::Vec<D> weight[R][V];
    const A* const w = t.weight + row * t.weight_step;
    CONVSHIP_UNROLL
    for (int r = 0; r < R; ++r) {
      CONVSHIP_UNROLL
      for (int v = 0; v < V; ++v) weight[r][v] = hn::Load(d, w + r * t.weight_step + v * kLanes);
    }
    A* const x = t.image + row * t.image_step;
    for (int64_t i = 0; i < t.count; ++i) {
      A* to = x + t.places[i];
      const auto grad = hn::Set(d, t.grads[i]);
      CONVSHIP_UNROLL
      for (int r = 0; r < R; ++r) {
        CONVSHIP_UNROLL
        for (int v = 0; v < V; ++v) {
          A* place = to + r * t.image_step + v * kLanes;
          hn::StoreU(hn::MulAdd(grad, weight[r][v], hn::LoadU(d, place)), d, place);
        }
      }
    }
  }
};

template <bool kToWeights, int R, int V, typename A>
void winner_rows(const WinnersTask<A>& t, int64_t row) {
  using D = hn::ScalableTag<A>;
  if constexpr (kToWeights) {
    Winners<D, R, V>::weights(t, row);
  } else {
    Winners<D, R, V>::image(t, row);
  }
}

// All rows of the kernel, as many at a time as fit into the registers.
template <bool kToWeights, int V, typename A>
void winner_vectors(const WinnersTask<A>& t) {
  constexpr int kMost = (kRegisters - 4) / V < 5 ? (kRegisters - 4) / V : 5;
  int64_t row = 0;
  for (; row + kMost <= t.rows; row += kMost) winner_rows<kToWeights, kMost, V>(t, row);
  for (; row + 2 <= t.rows; row += 2) winner_rows<kToWeights, 2, V>(t, row);
  for (; row < t.rows; ++row) winner_rows<kToWeights, 1, V>(t, row);
}

template <bool kToWeights, typename A>
void winners(const WinnersTask<A>& t) {
  switch (t.vectors) {
    case 1:
      return winner_vectors<kToWeights, 1>(t);
    case 2:
      return winner_vectors<kToWeights, 2>(t);
    case 3:
      return winner_vectors<kToWeights, 3>(t);
    default:
      return winner_vectors<kToWeights, kMostWinnerVectors>(t);
  }
}
