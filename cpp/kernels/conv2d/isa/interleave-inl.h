// Channels side by side: copies that the loops read a vector of channels, or
// neighbouring channels, from.

// One vector of channels of an Interleave, and the largest magnitude in it.
template <class D>
struct ChannelRows {
  using A = hn::TFromD<D>;
  static constexpr int64_t kLanes = hn::MaxLanes(D());

  const Interleave<A>& t;
  int64_t c;  // first channel
  hn::Vec<D> largest = hn::Zero(D());

  void copy(A* to) {
    const D d;
    const int64_t begin = smaller(larger(-t.left, 0), t.columns);
    const int64_t end = larger(begin, smaller(t.image.w - t.left, t.columns));
    for (int64_t row = 0; row < t.rows; ++row, to += t.columns * kLanes) {
      const int64_t y = t.top + row;
      const bool inside = y >= 0 && y < t.image.h;
      const int64_t first = inside ? begin : t.columns;
      const int64_t last = inside ? end : t.columns;
      for (int64_t j = 0; j < first; ++j) hn::Store(hn::Zero(d), d, to + j * kLanes);
      for (int64_t j = last; j < t.columns; ++j) hn::Store(hn::Zero(d), d, to + j * kLanes);
      if (first == last) continue;
      const A* from = t.x + y * t.h_step + (t.left + first) * t.w_step;
      if (t.block > 1 || t.c_step == 1) {
        copy_adjoining(from, last - first, to + first * kLanes);
      } else {
        copy_planes(from, last - first, to + first * kLanes);
      }
    }
  }

  void seen(hn::Vec<D> values) { largest = larger_magnitude(largest, values); }

  // Channels side by side in memory, or in two blocks where a group begins within one.
  void copy_adjoining(const A* from, int64_t count, A* to) {
    const D d;
    const int64_t exist = smaller(kLanes, t.channels - c);
    const int64_t left = t.block > 1 ? t.block - (t.first + c) % t.block : exist;
    const int64_t here = smaller(exist, left);
    const A* next = from + channel_at(t, c + here);
    from += channel_at(t, c);
    for (int64_t j = 0; j < count; ++j, from += t.w_step, next += t.w_step, to += kLanes) {
      const hn::Vec<D> values = load_some(d, from, here);
      hn::Store(values, d, to);
      seen(values);
      if (here == exist) continue;
      const hn::Vec<D> others = load_some(d, next, exist - here);
      store_some(d, others, to + here, exist - here);
      seen(others);
    }
  }

  void copy_planes(const A* from, int64_t count, A* to) {
    const int64_t exist = smaller(kLanes, t.channels - c);
    from += c * t.c_step;
    int64_t j = 0;
    while (j < count && count >= kLanes) {
      j = smaller(j, count - kLanes);  // some columns twice, rather than one by one
      if (exist < kLanes) {
        copy_tile<false, 0>(from + j * t.w_step, exist, to + j * kLanes);
      } else if (t.w_step == 1) {
        copy_tile<true, 1>(from + j, exist, to + j * kLanes);
      } else {
        copy_tile<true, 0>(from + j * t.w_step, exist, to + j * kLanes);
      }
      j += kLanes;
    }
    for (; j < count; ++j) {
      A* pixel = to + j * kLanes;
      for (int64_t i = 0; i < kLanes; ++i) {
        pixel[i] = i < exist ? from[i * t.c_step + j * t.w_step] : A(0);
      }
      seen(hn::Load(D(), pixel));
    }
  }

  // kLanes columns. kWhole: of as many channels. kStep: w_step, 0 where it is any.
  template <bool kWhole, int kStep>
  HWY_INLINE void copy_tile(const A* from, int64_t exist, A* to) {
    const D d;
    hn::Vec<D> tile[kLanes];
    CONVSHIP_UNROLL
    for (int i = 0; i < kLanes; ++i, from += t.c_step) {
      tile[i] = kWhole || i < exist ? load_every(d, from, kStep ? kStep : t.w_step) : hn::Zero(d);
      seen(tile[i]);
    }
    transpose(d, tile);
    CONVSHIP_UNROLL
    for (int i = 0; i < kLanes; ++i) hn::Store(tile[i], d, to + i * kLanes);
  }
};

template <typename A>
void interleave(const Interleave<A>& t, A* to) {
  using D = hn::ScalableTag<A>;
  constexpr int64_t kLanes = hn::MaxLanes(D());
  for (int64_t c = 0; c < t.channels; c += kLanes, to += t.rows * t.columns * kLanes) {
    ChannelRows<D>{t, c}.copy(to);
  }
}

// to[j * to_step + i] = from[i * from_step + j]
template <typename A>
void transpose_matrix(
    const A* from, int64_t from_step, int64_t rows, int64_t columns, A* to, int64_t to_step) {
  const hn::ScalableTag<A> d;
  constexpr int64_t kLanes = hn::MaxLanes(hn::ScalableTag<A>());
  for (int64_t i = 0; i < rows; i += kLanes) {
    for (int64_t j = 0; j < columns; j += kLanes) {
      if (i + kLanes <= rows && j + kLanes <= columns) {
        hn::Vec<hn::ScalableTag<A>> tile[kLanes];
        CONVSHIP_UNROLL
        for (int64_t k = 0; k < kLanes; ++k) tile[k] = hn::LoadU(d, from + (i + k) * from_step + j);
        transpose(d, tile);
        CONVSHIP_UNROLL
        for (int64_t k = 0; k < kLanes; ++k) hn::StoreU(tile[k], d, to + (j + k) * to_step + i);
        continue;
      }
      for (int64_t k = i; k < smaller(i + kLanes, rows); ++k) {
        for (int64_t l = j; l < smaller(j + kLanes, columns); ++l) {
          to[l * to_step + k] = from[k * from_step + l];
        }
      }
    }
  }
}
