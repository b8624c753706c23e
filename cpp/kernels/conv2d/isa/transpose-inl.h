// Square transposes in registers, for vectors of 1, 2 or 4 blocks of 128 bits.

// Within each block: rows[i] holds column i of the block's rows afterwards.
template <class D>
HWY_INLINE void transpose_in_blocks(D d, hn::Vec<D>* rows) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    const auto low = hn::InterleaveLower(d, rows[0], rows[1]);
    rows[1] = hn::InterleaveUpper(d, rows[0], rows[1]);
    rows[0] = low;
  } else {
    const hn::Repartition<double, D> d64;
    const auto a = hn::BitCast(d64, hn::InterleaveLower(d, rows[0], rows[1]));
    const auto b = hn::BitCast(d64, hn::InterleaveUpper(d, rows[0], rows[1]));
    const auto c = hn::BitCast(d64, hn::InterleaveLower(d, rows[2], rows[3]));
    const auto e = hn::BitCast(d64, hn::InterleaveUpper(d, rows[2], rows[3]));
    rows[0] = hn::BitCast(d, hn::InterleaveLower(d64, a, c));
    rows[1] = hn::BitCast(d, hn::InterleaveUpper(d64, a, c));
    rows[2] = hn::BitCast(d, hn::InterleaveLower(d64, b, e));
    rows[3] = hn::BitCast(d, hn::InterleaveUpper(d64, b, e));
  }
}

// rows: as many as the vector has lanes.
template <class D>
HWY_INLINE void transpose(D d, hn::Vec<D>* rows) {
  constexpr int kLanes = hn::MaxLanes(D());
  constexpr int kInBlock = 16 / sizeof(hn::TFromD<D>);
  CONVSHIP_UNROLL
  for (int i = 0; i < kLanes; i += kInBlock) transpose_in_blocks(d, rows + i);
  // Now block b of rows[g * kInBlock + k] holds column b * kInBlock + k.
  if constexpr (kLanes == 2 * kInBlock) {
    CONVSHIP_UNROLL
    for (int k = 0; k < kInBlock; ++k) {
      const auto low = hn::ConcatLowerLower(d, rows[kInBlock + k], rows[k]);
      rows[kInBlock + k] = hn::ConcatUpperUpper(d, rows[kInBlock + k], rows[k]);
      rows[k] = low;
    }
  } else if constexpr (kLanes == 4 * kInBlock) {
    CONVSHIP_UNROLL
    for (int k = 0; k < kInBlock; ++k) {
      const auto r0 = rows[k], r1 = rows[kInBlock + k];
      const auto r2 = rows[2 * kInBlock + k], r3 = rows[3 * kInBlock + k];
      const auto a = hn::ConcatLowerLower(d, r2, r0);
      const auto b = hn::ConcatLowerLower(d, r3, r1);
      const auto c = hn::ConcatUpperUpper(d, r2, r0);
      const auto e = hn::ConcatUpperUpper(d, r3, r1);
      rows[k] = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(b), a);
      rows[kInBlock + k] = hn::OddEvenBlocks(b, hn::SwapAdjacentBlocks(a));
      rows[2 * kInBlock + k] = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(e), c);
      rows[3 * kInBlock + k] = hn::OddEvenBlocks(e, hn::SwapAdjacentBlocks(c));
    }
  }
}
