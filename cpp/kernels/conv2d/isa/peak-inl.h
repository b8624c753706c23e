// How fast this instruction set multiplies and adds when nothing else is in the
// way; see convship::fma_rate.

// The result depends on every operation, so that none can be left out. Values
// go to 1 and stay there: x = x * 0.5 + 0.5, never denormal.
template <typename A>
A fma_loop(int64_t rounds) {
  using D = hn::ScalableTag<A>;
  const D d;
  const auto half = hn::Set(d, A(0.5));
  hn::Vec<D> sum[kFmaRound];
  for (int i = 0; i < kFmaRound; ++i) sum[i] = hn::Set(d, static_cast<A>(i));
  for (int64_t round = 0; round < rounds; ++round) {
    for (int i = 0; i < kFmaRound; ++i) sum[i] = hn::MulAdd(sum[i], half, half);
  }
  for (int i = 1; i < kFmaRound; ++i) sum[0] = hn::Add(sum[0], sum[i]);
  return hn::GetLane(sum[0]);
}
