// Pieces that the loops share.

constexpr int64_t smaller(int64_t a, int64_t b) { return b < a ? b : a; }
constexpr int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

// `count` columns (or others) in tiles of nearly equal size, at most `most`: a
// narrow last tile would have too few independent sums.
struct Tiles {
  int64_t number;
  int64_t size;
  int64_t larger_ones;

  Tiles(int64_t count, int64_t most)
      : number((count + most - 1) / most), size(count / number), larger_ones(count % number) {}
  int64_t operator[](int64_t i) const { return size + (i < larger_ones ? 1 : 0); }
};

// Weights from far away, fetched while others are at work, `each` at a time: a
// tile's worth at once would keep all else from memory. kPair: as many more, `apart` from
// those.
template <typename A>
struct Ahead {
  const A* next;
  int64_t each;
  int64_t apart = 0;

  template <bool kPair = false>
  HWY_INLINE void fetch() {
    constexpr int64_t kLine = 64 / sizeof(A);  // of a cache
    const A* line = next;
    next += each;
    do {  // even if there is nothing to fetch: cheaper than to ask
      __builtin_prefetch(line, 0, 2);
      if constexpr (kPair) __builtin_prefetch(line + apart, 0, 2);
      line += kLine;
    } while (line < next);
  }
};

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

// Whether masked loads and stores leave memory alone that they mask out. On AVX2, too, those of
// floats and doubles do, which Highway does not promise for all of its types.
template <typename A>
constexpr bool kHasMasks =
    !HWY_MEM_OPS_MIGHT_FAULT || (HWY_TARGET == HWY_AVX2 && sizeof(A) >= sizeof(float));

// `exist` of a vector's values; memory beyond them is not touched.
template <class D, typename A = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> load_some(D d, const A* from, int64_t exist) {
  constexpr int64_t kLanes = hn::MaxLanes(D());
  if (exist >= kLanes) return hn::LoadU(d, from);
  if constexpr (kHasMasks<A>) {
    return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(exist)), d, from);
  } else {
    HWY_ALIGN A lanes[kLanes] = {};
    for (int64_t i = 0; i < exist; ++i) lanes[i] = from[i];
    return hn::Load(d, lanes);
  }
}

template <class D, typename A = hn::TFromD<D>>
HWY_INLINE void store_some(D d, hn::Vec<D> value, A* to, int64_t exist) {
  constexpr int64_t kLanes = hn::MaxLanes(D());
  if (exist >= kLanes) return hn::StoreU(value, d, to);
  if constexpr (kHasMasks<A>) {
    hn::BlendedStore(value, hn::FirstN(d, static_cast<size_t>(exist)), d, to);
  } else {
    HWY_ALIGN A lanes[kLanes];
    hn::Store(value, d, lanes);
    for (int64_t i = 0; i < exist; ++i) to[i] = lanes[i];
  }
}

// from[0], from[2 * step], ... of vectors of every step-th value; reads nothing beyond the
// last.
template <class D>
HWY_INLINE hn::Vec<D> every_other(D d, hn::Vec<D> first, hn::Vec<D> last) {
  return hn::ConcatUpperLower(d, hn::ConcatOdd(d, last, last), hn::ConcatEven(d, first, first));
}

// from[0], from[step], from[2 * step], ...
template <class D, typename A = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> load_every(D d, const A* from, int64_t step) {
  constexpr int64_t kLanes = hn::MaxLanes(D());
  const auto two = [&](const A* at) HWY_ATTR {
    return every_other(d, hn::LoadU(d, at), hn::LoadU(d, at + kLanes - 1));
  };
  if (step == 1) return hn::LoadU(d, from);
  if (step == 2) return two(from);
  if (step == 4) return every_other(d, two(from), two(from + 2 * (kLanes - 1)));
  HWY_ALIGN A lanes[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = from[i * step];
  return hn::Load(d, lanes);
}

// Either NaN makes NaN. x86's maximum returns its second operand when one is
// NaN, so only a NaN in `a` needs care; on other CPUs the choice is redundant.
template <class V>
HWY_INLINE V max_of(V a, V b) {
  return hn::IfThenElse(hn::IsNaN(a), a, hn::Max(a, b));
}

template <class V>
HWY_INLINE V min_of(V a, V b) {
  return hn::IfThenElse(hn::IsNaN(a), a, hn::Min(a, b));
}

// A fused sum can underflow to -0.0; whether it does must not tell which zeros were
// added to it.
template <class V>
HWY_INLINE V without_minus_zero(V sum) {
  return hn::Add(sum, hn::Zero(hn::DFromV<V>()));
}

// NaN stays. -0.0, of a residual, becomes 0.0; a maximum
// of the two would be either, depending on the CPU.
template <class V>
HWY_INLINE V relu(V value) {
  return hn::IfThenZeroElse(hn::Le(value, hn::Zero(hn::DFromV<V>())), value);
}

// Of what is never -0.0, unless the caller has denormal numbers flushed to it, when that may
// stay. NaN stays, as the second operand (see max_of).
template <class V>
HWY_INLINE V relu_of_sum(V value) {
  return hn::Max(hn::Zero(hn::DFromV<V>()), value);
}

// x in [-limit, limit], where an exponential stays in the range. NaN stays, as the
// second operand (see max_of).
template <class D>
HWY_INLINE hn::Vec<D> within(D d, hn::TFromD<D> limit, hn::Vec<D> x) {
  return hn::Min(hn::Set(d, limit), hn::Max(hn::Set(d, -limit), x));
}

// log2(e), and what float32 leaves of it.
constexpr float kLog2E = 1.44269502f, kRestOfLog2E = 1.92596303e-8f;

// (2^f - 1) / f for f in [-0.5, 0.5]: the least relative error of 2^f that a polynomial of
// degree 6 can have here, 2e-9.
template <class D>
HWY_INLINE hn::Vec<D> exp2m1_over(D d, hn::Vec<D> f) {
  auto quotient = hn::Set(d, 0.00015353362f);
  quotient = hn::MulAdd(quotient, f, hn::Set(d, 0.00133988739f));
  quotient = hn::MulAdd(quotient, f, hn::Set(d, 0.00961843692f));
  quotient = hn::MulAdd(quotient, f, hn::Set(d, 0.0555033237f));
  quotient = hn::MulAdd(quotient, f, hn::Set(d, 0.240226477f));
  return hn::MulAdd(quotient, f, hn::Set(d, 0.693147182f));
}

// exp(sign * x) for |x| <= 87, as scale * (1 + more): with the one left out, numbers near
// zero keep their digits. 2^n * 2^f, with n an integer and f in [-0.5, 0.5] (Cody and
// Waite, Software Manual for the Elementary Functions, 1980). Highway's Exp takes twice
// as long.
template <class D>
struct ExpOf {
  using V = hn::Vec<D>;

  V scale;
  V more;
  V quotient, f;  // more = quotient * f

  HWY_INLINE ExpOf(D d, float sign, V x) {
    // A float of this size has no fraction: its lowest bits are n + 127, the exponent
    // of 2^n.
    const auto shifter = hn::Set(d, 12582912.0f + 127.0f);
    const auto log2e = hn::Set(d, sign * kLog2E);
    const auto rest_of_log2e = hn::Set(d, sign * kRestOfLog2E);
    const auto shifted = hn::MulAdd(x, log2e, shifter);
    const auto n = hn::Sub(shifted, shifter);
    f = hn::MulAdd(x, rest_of_log2e, hn::MulSub(x, log2e, n));
    quotient = exp2m1_over(d, f);
    more = hn::Mul(quotient, f);
    const hn::RebindToUnsigned<D> bits;
    scale = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(bits, shifted)));
  }

  HWY_INLINE V one_and_more() const { return hn::MulAdd(quotient, f, hn::Set(D(), 1.0f)); }
};

// 1 + exp(-x). Beyond +-87 sigmoid is 0 or 1 to the last bit but for numbers below the
// smallest normal one.
template <class D>
HWY_INLINE hn::Vec<D> one_and_exp_of_negative(D d, hn::Vec<D> x) {
  using A = hn::TFromD<D>;
  const auto one = hn::Set(d, A(1));
  const auto bounded = within(d, A(87), x);
  if constexpr (sizeof(A) == sizeof(double)) {
    return hn::Add(one, hn::Exp(d, hn::Neg(bounded)));
  } else {
    const ExpOf<D> e(d, -1, bounded);
    const auto sum = hn::MulAdd(e.one_and_more(), e.scale, one);
    // Far below, so that what is divided by it vanishes however large it is.
    return hn::IfThenElse(hn::Lt(x, hn::Set(d, A(-87))), hn::Set(d, infinity<A>()), sum);
  }
}

// exp(x) - 1 for |x| <= 87.
template <class D>
HWY_INLINE hn::Vec<D> expm1(D d, hn::Vec<D> x) {
  if constexpr (sizeof(hn::TFromD<D>) == sizeof(double)) {
    return hn::Expm1(d, x);
  } else {
    const ExpOf<D> e(d, 1, x);
    return hn::MulAdd(e.more, e.scale, hn::Sub(e.scale, hn::Set(d, 1.0f)));
  }
}

// exp(x) for |x| <= 87.
template <class D>
HWY_INLINE hn::Vec<D> exp(D d, hn::Vec<D> x) {
  if constexpr (sizeof(hn::TFromD<D>) == sizeof(double)) {
    return hn::Exp(d, x);
  } else {
    const ExpOf<D> e(d, 1, x);
    return hn::Mul(e.one_and_more(), e.scale);
  }
}

// x * tanh(log(1 + exp(x))), which is x * n / (n + 2) with n = exp(x) * (exp(x) + 2).
template <class D>
HWY_INLINE hn::Vec<D> mish(D d, hn::Vec<D> x) {
  using A = hn::TFromD<D>;
  // Above, n / (n + 2) is 1 to the last bit.
  const auto bounded = hn::Min(hn::Set(d, A(20)), hn::Max(hn::Set(d, A(-87)), x));
  const auto two = hn::Set(d, A(2));
  const auto e = exp(d, bounded);
  const auto n = hn::Mul(e, hn::Add(e, two));
  const auto share = hn::Div(n, hn::Add(n, two));
  return hn::Mul(x, hn::IfThenElseZero(hn::Ge(x, hn::Set(d, A(-87))), share));
}

// log(1 + exp(x)), which is x to the last bit above 20.
template <class D>
HWY_INLINE hn::Vec<D> softplus(D d, hn::Vec<D> x) {
  using A = hn::TFromD<D>;
  const auto bounded = hn::Min(hn::Set(d, A(20)), hn::Max(hn::Set(d, A(-87)), x));
  const auto inside = hn::Log1p(d, exp(d, bounded));
  // NaN goes this way, too.
  return hn::IfThenElse(hn::Le(x, hn::Set(d, A(20))), inside, x);
}

// min(max(x, 0), 6). NaN stays, as the second operand (see max_of).
template <class V>
HWY_INLINE V up_to_six(V value) {
  const hn::DFromV<V> d;
  return hn::Min(hn::Set(d, hn::TFromV<V>(6)), hn::Max(hn::Zero(d), value));
}

template <typename A>
constexpr A kSixth = A(1) / A(6);

// A vector that is an operand in memory of the instruction that uses it, and takes no register;
// compilers would load it once for all.
template <class D, typename A = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> operand(D d, const A*& from, int64_t at) {
  asm("" : "+r"(from));
  return hn::Load(d, from + at);
}

// hardswish where registers are full of sums: as Ramp, of numbers that are known to it.
template <class D>
struct Hardswish {
  using V = hn::Vec<D>;
  using A = hn::TFromD<D>;
  static constexpr int64_t kLanes = hn::MaxLanes(D());

  alignas(64) static constexpr auto kNumbers = [] {
    struct {
      A values[2 * kLanes];
    } numbers{};
    for (int64_t i = 0; i < kLanes; ++i) {
      numbers.values[i] = 3;
      numbers.values[kLanes + i] = kSixth<A>;
    }
    return numbers;
  }();

  HWY_INLINE V operator()(V x) const {
    const A* numbers = kNumbers.values;
    const V bounded = up_to_six(hn::Add(x, operand(D(), numbers, 0)));
    return hn::Mul(hn::Mul(bounded, operand(D(), numbers, kLanes)), x);
  }
};

// hardsigmoid and hardswish: min(max(x + 3, 0), 6) / 6, times x or not. A division by 6
// would take as long as ten multiply-adds; the product rounds once more, and not at 0 and 6.
template <class D>
struct Ramp {
  using V = hn::Vec<D>;
  using A = hn::TFromD<D>;

  hn::Mask<D> times_x;

  explicit Ramp(Activation::Kind kind)
      : times_x(hn::FirstN(D(), kind == Activation::hardswish ? hn::MaxLanes(D()) : 0)) {}

  HWY_INLINE V operator()(V x) const {
    const V bounded = up_to_six(hn::Add(x, hn::Set(D(), A(3))));
    const V result = hn::Mul(bounded, hn::Set(D(), kSixth<A>));
    return hn::IfThenElse(times_x, hn::Mul(result, x), result);
  }
};

// leaky_relu and clamp: max(min(x, below zero times a slope), ...). NaN stays, as in Ramp.
template <class D>
struct Bend {
  using V = hn::Vec<D>;
  using A = hn::TFromD<D>;

  V slope, low, high;

  explicit Bend(const Activation& f)
      : slope(hn::Set(D(), f.kind == Activation::leaky_relu ? A(f.a) : A(1))),
        low(hn::Set(D(), f.kind == Activation::clamp ? A(f.a) : -infinity<A>())),
        high(hn::Set(D(), f.kind == Activation::clamp ? A(f.b) : infinity<A>())) {}

  HWY_INLINE V operator()(V x) const {
    const V bent = hn::IfThenElse(hn::Gt(x, hn::Zero(D())), x, hn::Mul(x, slope));
    return hn::Min(high, hn::Max(low, bent));
  }
};

// function(x) of numbers that no instruction of vectors, nor Highway, has it for.
template <class D, class Function>
HWY_INLINE hn::Vec<D> lane_by_lane(D d, hn::Vec<D> x, const Function& function) {
  HWY_ALIGN hn::TFromD<D> lanes[hn::MaxLanes(D())];
  hn::Store(x, d, lanes);
  for (auto& lane : lanes) lane = function(lane);
  return hn::Load(d, lanes);
}

// erf(x / sqrt(2)). NaN stays, in the bounds (see max_of).
template <class D>
HWY_INLINE hn::Vec<D> erf_of_normal(D d, hn::Vec<D> x) {
  using A = hn::TFromD<D>;
  if constexpr (sizeof(A) == sizeof(double)) {
    return lane_by_lane(d, x, [](A v) { return __builtin_erf(v * 0.70710678118654752); });
  } else {
    // erf(x / sqrt(2)) = x P(x^2) / Q(x^2) with a relative error of 1e-8 up to kOne, where it
    // is 1 to the last bit, as it is beyond: a least squares fit, weighted again and again
    // until its errors were level (Lawson, 1961).
    constexpr float kOne = 5.3f;
    const auto bounded = hn::Min(hn::Set(d, kOne), hn::Max(hn::Set(d, -kOne), x));
    const auto square = hn::Mul(bounded, bounded);
    const auto polynomial = [&](const auto&... rest) HWY_ATTR {
      auto value = hn::Zero(d);
      ((value = hn::MulAdd(value, square, hn::Set(d, rest))), ...);
      return value;
    };
    const auto numerator = polynomial(4.85385802e-8f, 1.27099220e-5f, 3.14580186e-4f,
                                      9.21950475e-3f, 6.52830959e-2f, 0.797884553f);
    const auto denominator = polynomial(1.24172369e-6f, 7.03546328e-5f, 1.81950257e-3f,
                                        2.79697977e-2f, 0.248486741f, 1.0f);
    return hn::Div(hn::Mul(bounded, numerator), denominator);
  }
}

// x / 2 * (1 + erf(x / sqrt(2))), to within 4 * 2^-24 * |x|.
template <class D>
HWY_INLINE hn::Vec<D> gelu(D d, hn::Vec<D> x) {
  const auto half = hn::Mul(x, hn::Set(d, hn::TFromD<D>(0.5)));
  return hn::MulAdd(half, erf_of_normal(d, x), half);
}

// 2^(n + f) for an integer n, of any size, and f in [-0.5, 0.5].
template <class D>
HWY_INLINE hn::Vec<D> exp2_of(D d, hn::Vec<D> n, hn::Vec<D> f) {
  const hn::RebindToSigned<D> bits;
  // Beyond, it is 0 or infinite. Twice half of n, as 2^n alone may not be a number.
  const auto exponent = hn::NearestInt(within(d, 252, n));
  const auto half = hn::ShiftRight<1>(exponent);
  const auto power_of_2 = [&](auto e) HWY_ATTR {
    return hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(e, hn::Set(bits, 127))));
  };
  const auto mantissa = hn::MulAdd(exp2m1_over(d, f), f, hn::Set(d, 1.0f));
  return hn::Mul(hn::Mul(mantissa, power_of_2(half)), power_of_2(hn::Sub(exponent, half)));
}

// exp(x), whatever it comes to.
template <class D>
HWY_INLINE hn::Vec<D> exp_of_any(D d, hn::Vec<D> x) {
  if constexpr (sizeof(hn::TFromD<D>) == sizeof(double)) {
    return hn::Exp(d, x);
  } else {
    const auto bounded = within(d, 128, x);
    const auto log2e = hn::Set(d, kLog2E);
    const auto n = hn::Round(hn::Mul(bounded, log2e));
    const auto rest = hn::MulSub(bounded, log2e, n);
    return exp2_of(d, n, hn::MulAdd(bounded, hn::Set(d, kRestOfLog2E), rest));
  }
}

// log2(x) of what is above zero and finite, as n + f, with f in [-0.5, 0.5].
template <class D>
struct Log2Of {
  using V = hn::Vec<D>;

  V n, f;

  HWY_INLINE Log2Of(D d, V x) {
    const hn::RebindToSigned<D> bits;
    const auto subnormal = hn::Lt(x, hn::Set(d, 1.17549435e-38f));
    const V normal = hn::IfThenElse(subnormal, hn::Mul(x, hn::Set(d, 16777216.0f)), x);
    // Of the number over sqrt(1/2), whose bits these are: so the mantissa is in sqrt(1/2) to
    // sqrt(2), and near 1 the exponent is 0.
    const auto over = hn::Sub(hn::BitCast(bits, normal), hn::Set(bits, 0x3F3504F3));
    const auto exponent = hn::ShiftRight<23>(over);
    const auto mantissa =
        hn::BitCast(d, hn::Sub(hn::BitCast(bits, normal), hn::ShiftLeft<23>(exponent)));
    n = hn::Sub(hn::ConvertTo(d, exponent), hn::IfThenElseZero(subnormal, hn::Set(d, 24.0f)));
    // log(m) = 2 atanh(s) with s = (m - 1) / (m + 1), whose series ends here.
    const auto one = hn::Set(d, 1.0f);
    const auto s = hn::Div(hn::Sub(mantissa, one), hn::Add(mantissa, one));
    const auto square = hn::Mul(s, s);
    auto series = hn::Set(d, 2.88539008f / 9);  // 2 / log(2)
    series = hn::MulAdd(series, square, hn::Set(d, 2.88539008f / 7));
    series = hn::MulAdd(series, square, hn::Set(d, 2.88539008f / 5));
    series = hn::MulAdd(series, square, hn::Set(d, 2.88539008f / 3));
    f = hn::MulAdd(hn::Mul(series, square), s, hn::Mul(s, hn::Set(d, 2.88539008f)));
  }
};

// log(x); of zero, what is below it and what is not finite, too.
template <class D>
HWY_INLINE hn::Vec<D> log_of_any(D d, hn::Vec<D> x) {
  using A = hn::TFromD<D>;
  const auto zero = hn::Zero(d), infinite = hn::Set(d, infinity<A>());
  hn::Vec<D> value;
  if constexpr (sizeof(A) == sizeof(double)) {
    value = hn::Log(d, x);
  } else {
    const Log2Of<D> log2(d, x);
    // log(2), its first bits times n without an error.
    const auto rest =
        hn::MulAdd(log2.n, hn::Set(d, 1.42860677e-6f), hn::Mul(log2.f, hn::Set(d, 0.693147182f)));
    value = hn::MulAdd(log2.n, hn::Set(d, 0.693145752f), rest);
  }
  value = hn::IfThenElse(hn::Eq(x, zero), hn::Neg(infinite), value);
  value = hn::IfThenElse(hn::Eq(x, infinite), infinite, value);
  // Also where x is NaN.
  return hn::IfThenElse(hn::Ge(x, zero), value, hn::NaN(d));
}

// x^a by logarithms, as std::pow: below zero NaN unless a is an integer, negative where it is odd.
template <class D>
struct Power {
  using V = hn::Vec<D>;
  using A = hn::TFromD<D>;

  A a;
  bool is_integer, is_odd;

  explicit Power(A exponent) : a(exponent) {
    const A size = a < 0 ? -a : a;
    const auto whole = static_cast<int>(size);
    is_integer = static_cast<A>(whole) == size;
    is_odd = is_integer && whole % 2 == 1;
  }

  HWY_INLINE V operator()(V x) const {
    const D d;
    if constexpr (sizeof(A) == sizeof(double)) {
      return lane_by_lane(d, x, [&](A v) { return __builtin_pow(v, a); });
    } else {
      const auto zero = hn::Zero(d), infinite = hn::Set(d, infinity<A>());
      const V size = hn::Abs(x);
      const Log2Of<D> log2(d, size);
      // a * (n + f), whose first product is kept whole.
      const V factor = hn::Set(d, a);
      const V large = hn::Mul(factor, log2.n), error = hn::MulSub(factor, log2.n, large);
      const V small = hn::Mul(factor, log2.f);
      const V n = hn::Round(hn::Add(large, small));
      V value = exp2_of(d, n, hn::Add(hn::Add(hn::Sub(large, n), small), error));
      const auto ends = [&](V end, A limit) HWY_ATTR {
        value = hn::IfThenElse(hn::Eq(size, end), hn::Set(d, limit), value);
      };
      ends(zero, a > 0 ? A(0) : infinity<A>());
      ends(infinite, a > 0 ? infinity<A>() : A(0));
      if (is_odd) value = hn::CopySign(value, x);
      const auto none = hn::And(hn::Lt(x, zero), hn::Lt(size, infinite));
      if (!is_integer) value = hn::IfThenElse(none, hn::NaN(d), value);
      return hn::IfThenElse(hn::IsNaN(x), x, value);
    }
  }
};

// each(function) for x^a. Roots are taken and few factors multiplied, as torch does.
template <class D, class Each>
HWY_INLINE void each_power(D d, hn::TFromD<D> a, const Each& each) {
  using V = hn::Vec<D>;
  using A = hn::TFromD<D>;
  const auto or_inverse = [&](const auto& function) HWY_ATTR {
    const auto inverse = [&](V x) HWY_ATTR { return hn::Div(hn::Set(d, A(1)), function(x)); };
    a < 0 ? each(inverse) : each(function);
  };
  const A size = a < 0 ? -a : a;
  if (size == A(0.5)) return or_inverse([](V x) HWY_ATTR { return hn::Sqrt(x); });
  if (size == A(1)) return or_inverse([](V x) HWY_ATTR { return x; });
  if (size == A(2)) return or_inverse([](V x) HWY_ATTR { return hn::Mul(x, x); });
  if (size == A(3)) return or_inverse([](V x) HWY_ATTR { return hn::Mul(hn::Mul(x, x), x); });
  each(Power<D>(a));
}

// each(function) for an activation that takes a few instructions; false for one that takes
// more.
template <class D, class Each>
HWY_INLINE bool activate_shortly(const Activation& activation, const Each& each) {
  using V = hn::Vec<D>;
  switch (activation.kind) {
    case Activation::none:
      return true;
    case Activation::relu:
      each([](V x) HWY_ATTR { return relu(x); });
      return true;
    case Activation::relu6:
      each(up_to_six<V>);
      return true;
    case Activation::hardsigmoid:
    case Activation::hardswish:
      each(Ramp<D>(activation.kind));
      return true;
    case Activation::leaky_relu:
    case Activation::clamp:
      each(Bend<D>(activation));
      return true;
    default:
      return false;
  }
}

// Of values in memory, and the only home of those that take a polynomial: a loop instead of a
// copy of it for every vector of a tile.
template <class D, typename A = hn::TFromD<D>>
HWY_NOINLINE void activate_in_memory(D d, const Activation& activation, A* values, int64_t count) {
  const auto each = [&](const auto& function) HWY_ATTR {
    for (int64_t i = 0; i < count; i += hn::MaxLanes(d)) {
      hn::StoreU(function(hn::LoadU(d, values + i)), d, values + i);
    }
  };
  if (activate_shortly<D>(activation, each)) return;
  using V = hn::Vec<D>;
  switch (activation.kind) {
    case Activation::silu:
      return each([&](V x) HWY_ATTR { return hn::Div(x, one_and_exp_of_negative(d, x)); });
    case Activation::gelu:
      return each([&](V x) HWY_ATTR { return gelu(d, x); });
    case Activation::gelu_tanh:
      // (1 + tanh(y)) / 2 is the sigmoid of 2 y; here y = sqrt(2 / pi) (x + 0.044715 x^3).
      return each([&](V x) HWY_ATTR {
        const auto cubic = hn::Mul(hn::Mul(x, x), hn::Set(d, A(0.071354816282698)));
        const auto y = hn::Mul(x, hn::Add(cubic, hn::Set(d, A(1.5957691216057308))));
        return hn::Div(x, one_and_exp_of_negative(d, y));
      });
    case Activation::elu:
      return each([&](V x) HWY_ATTR {
        const auto zero = hn::Zero(d);
        const auto below = hn::Min(zero, hn::Max(hn::Set(d, A(-87)), x));
        return hn::IfThenElse(hn::Gt(x, zero), hn::Mul(x, hn::Set(d, A(activation.b))),
                              hn::Mul(expm1(d, below), hn::Set(d, A(activation.a))));
      });
    case Activation::tanh:
      // 1 to the last bit beyond 20.
      return each([&](V x) HWY_ATTR {
        const auto e = expm1(d, within(d, A(40), hn::Add(x, x)));
        return hn::Div(e, hn::Add(e, hn::Set(d, A(2))));
      });
    case Activation::mish:
      return each([&](V x) HWY_ATTR { return mish(d, x); });
    case Activation::softplus:
      return each([&](V x) HWY_ATTR { return softplus(d, x); });
    case Activation::abs:
      return each([&](V x) HWY_ATTR { return hn::Abs(x); });
    case Activation::erf:
      return each([&](V x) HWY_ATTR {
        return erf_of_normal(d, hn::Mul(x, hn::Set(d, A(1.4142135623730951))));
      });
    case Activation::exp:
      return each([&](V x) HWY_ATTR { return exp_of_any(d, x); });
    case Activation::log:
      return each([&](V x) HWY_ATTR { return log_of_any(d, x); });
    case Activation::power:
      return each_power(d, A(activation.a), each);
    default:  // sigmoid
      return each(
          [&](V x) HWY_ATTR { return hn::Div(hn::Set(d, A(1)), one_and_exp_of_negative(d, x)); });
  }
}

// Of the vectors of a tile.
template <int kCount, class V>
HWY_INLINE void activate_all(const Activation& activation, V* values) {
  const auto each = [&](const auto& function) HWY_ATTR {
    CONVSHIP_UNROLL
    for (int i = 0; i < kCount; ++i) values[i] = function(values[i]);
  };
  if (activate_shortly<hn::DFromV<V>>(activation, each)) return;
  const hn::DFromV<V> d;
  constexpr int64_t kLanes = hn::MaxLanes(hn::DFromV<V>());
  HWY_ALIGN hn::TFromV<V> lanes[kCount * kLanes];
  CONVSHIP_UNROLL
  for (int i = 0; i < kCount; ++i) hn::Store(values[i], d, lanes + i * kLanes);
  activate_in_memory(d, activation, lanes, kCount * kLanes);
  CONVSHIP_UNROLL
  for (int i = 0; i < kCount; ++i) values[i] = hn::Load(d, lanes + i * kLanes);
}

template <class V>
HWY_INLINE V activate(const Activation& activation, V x) {
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
