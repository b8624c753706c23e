// bfloat16 from the values that sums are made of.

// To the nearest, ties to even; NaN stays NaN: as to_bfloat16, which the linker would share
// with files for other CPUs.
template <class D>
HWY_INLINE auto bfloat16_bits(D /*d*/, hn::Vec<D> values) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, values);
  const auto high = hn::ShiftRight<16>(bits);
  const auto odd = hn::And(high, hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7fffu)), odd));
  const auto quiet = hn::Or(high, hn::Set(du, 0x40u));
  const auto is_nan = hn::RebindMask(du, hn::IsNaN(values));
  return hn::TruncateTo(hn::Rebind<uint16_t, D>(), hn::IfThenElse(is_nan, quiet, rounded));
}

template <typename A>
void narrow_values(const Narrow<A>& t) {
  if constexpr (sizeof(A) == sizeof(float)) {
    static_assert(sizeof(BFloat16) == sizeof(uint16_t));
    const hn::ScalableTag<float> d;
    const hn::Rebind<uint16_t, hn::ScalableTag<float>> d16;
    constexpr int64_t kLanes = hn::MaxLanes(hn::ScalableTag<float>());
    const bool one = t.from_step == t.count && t.to_step == t.count;
    const int64_t pieces = one ? 1 : t.pieces, count = one ? t.pieces * t.count : t.count;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const float* from = t.from + piece * t.from_step;
      auto* to = reinterpret_cast<uint16_t*>(t.to + piece * t.to_step);
      int64_t i = 0;
      for (; i + kLanes <= count; i += kLanes) {
        hn::StoreU(bfloat16_bits(d, hn::LoadU(d, from + i)), d16, to + i);
      }
      if (i < count) {
        store_some(d16, bfloat16_bits(d, load_some(d, from + i, count - i)), to + i, count - i);
      }
    }
  }
}
