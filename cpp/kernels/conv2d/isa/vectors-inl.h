// Pieces that the loops share.

constexpr int64_t smaller(int64_t a, int64_t b) { return b < a ? b : a; }
constexpr int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

template <typename A>
constexpr A infinity();
template <>
constexpr float infinity<float>() {
  return __builtin_inff();
}
template <>
constexpr double infinity<double>() {
  return __builtin_inf();
}

// Either NaN makes NaN. x86's maximum returns its second operand when one is
// NaN, so only a NaN in `a` needs care; on other CPUs the choice is redundant.
template <class V>
HWY_INLINE V max_of(V a, V b) {
  return hn::IfThenElse(hn::IsNaN(a), a, hn::Max(a, b));
}

// NaN stays. -0.0, which a fused sum can underflow to, becomes 0.0; a maximum
// of the two would be either, depending on the CPU.
template <class V>
HWY_INLINE V relu(V value) {
  return hn::IfThenZeroElse(hn::Le(value, hn::Zero(hn::DFromV<V>())), value);
}

// 1 / (1 + exp(-x)); NaN stays.
template <class V>
HWY_INLINE V sigmoid(V x) {
  const hn::DFromV<V> d;
  using A = hn::TFromD<decltype(d)>;
  const V one = hn::Set(d, A(1));
  // Beyond, exp would leave the range; the result is 0 or 1 to the last bit but
  // for numbers below the smallest normal one.
  const V most = hn::Set(d, A(87));
  const V bounded = hn::Min(hn::Max(hn::Neg(x), hn::Neg(most)), most);
  const V result = hn::Div(one, hn::Add(one, hn::Exp(d, bounded)));
  return hn::IfThenElse(hn::IsNaN(x), x, result);
}

// min(max(x, 0), 6); NaN stays.
template <class V>
HWY_INLINE V relu6(V x) {
  const V six = hn::Set(hn::DFromV<V>(), 6);
  return hn::IfThenElse(hn::Ge(x, six), six, relu(x));
}

// relu6(x + 3) / 6
template <class V>
HWY_INLINE V hardsigmoid(V x) {
  const hn::DFromV<V> d;
  return hn::Div(relu6(hn::Add(x, hn::Set(d, 3))), hn::Set(d, 6));
}

// One decision for a whole row of vectors.
template <class D, typename A = hn::TFromD<D>>
HWY_NOINLINE void rarer_activation(D d, Activation activation, A* values, int64_t count) {
  const auto each = [&](const auto& function) {
    for (int64_t i = 0; i < count; i += hn::MaxLanes(d)) {
      hn::Store(function(hn::Load(d, values + i)), d, values + i);
    }
  };
  using V = hn::Vec<D>;
  switch (activation) {
    case Activation::relu6:
      return each([](V x) { return relu6(x); });
    case Activation::sigmoid:
      return each([](V x) { return sigmoid(x); });
    case Activation::hardsigmoid:
      return each([](V x) { return hardsigmoid(x); });
    case Activation::silu:
      return each([](V x) { return hn::Mul(x, sigmoid(x)); });
    case Activation::hardswish:
      return each([](V x) { return hn::Mul(x, hardsigmoid(x)); });
    default:
      return;
  }
}

// Of the vectors of a tile.
template <int kCount, class V>
HWY_INLINE void activate_all(Activation activation, V* values) {
  if (activation == Activation::none) return;
  if (activation == Activation::relu) {
    CONVSHIP_UNROLL
    for (int i = 0; i < kCount; ++i) values[i] = relu(values[i]);
    return;
  }
  const hn::DFromV<V> d;
  constexpr int64_t kLanes = hn::MaxLanes(hn::DFromV<V>());
  HWY_ALIGN hn::TFromV<V> lanes[kCount * kLanes];
  CONVSHIP_UNROLL
  for (int i = 0; i < kCount; ++i) hn::Store(values[i], d, lanes + i * kLanes);
  rarer_activation(d, activation, lanes, kCount * kLanes);
  CONVSHIP_UNROLL
  for (int i = 0; i < kCount; ++i) values[i] = hn::Load(d, lanes + i * kLanes);
}

template <class V>
HWY_INLINE V activate(Activation activation, V x) {
  activate_all<1>(activation, &x);
  return x;
}

// max(|a|, |b|); NaN where b is. As integers, magnitudes of floats are ordered,
// with NaN above infinity.
template <class V>
HWY_INLINE V larger_magnitude(V a, V b) {
  return max_of(a, hn::Abs(b));
}

// from[q * step + c] for q < columns, c < channels (at most a vector) goes to
// to[c * channel_step + q * column_step].
template <class D, typename A = hn::TFromD<D>>
void write_transposed(const A* from,
                      int64_t step,
                      int64_t columns,
                      int64_t channels,
                      A* to,
                      int64_t channel_step,
                      int64_t column_step) {
  const D d;
  constexpr int64_t kLanes = hn::MaxLanes(D());
  int64_t q = 0;
  if (column_step == 1) {
    for (; q + kLanes <= columns; q += kLanes) {
      hn::Vec<D> tile[kLanes];
      CONVSHIP_UNROLL
      for (int64_t i = 0; i < kLanes; ++i) tile[i] = hn::Load(d, from + (q + i) * step);
      transpose(d, tile);
      for (int64_t c = 0; c < channels; ++c) hn::StoreU(tile[c], d, to + c * channel_step + q);
    }
  }
  for (; q < columns; ++q) {
    for (int64_t c = 0; c < channels; ++c) {
      to[c * channel_step + q * column_step] = from[q * step + c];
    }
  }
}
