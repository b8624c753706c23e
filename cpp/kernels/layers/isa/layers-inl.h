// Pooling, elementwise layers, linear and depthwise layers over vectors of
// floats. Included once by each file that is compiled for an instruction set of
// its own.

using F = hn::ScalableTag<float>;
using FV = hn::Vec<F>;
constexpr int64_t kF = hn::MaxLanes(F());
constexpr int64_t kPixel = 16;

// `exist` of a vector's values; memory beyond them is not touched.
HWY_INLINE FV load_some(const float* from, int64_t exist) {
  if (exist >= kF) return hn::LoadU(F(), from);
  HWY_ALIGN float lanes[kF] = {};
  for (int64_t i = 0; i < exist; ++i) lanes[i] = from[i];
  return hn::Load(F(), lanes);
}

HWY_INLINE void store_some(FV value, float* to, int64_t exist) {
  if (exist >= kF) return hn::StoreU(value, F(), to);
  HWY_ALIGN float lanes[kF];
  hn::Store(value, F(), lanes);
  for (int64_t i = 0; i < exist; ++i) to[i] = lanes[i];
}

template <bool kAverage>
void pool_windows(const PoolTask& t) {
  const F d;
  for (int64_t p = t.begin; p < t.end; ++p) {
    const Window rows = t.rows[p];
    for (int64_t q = 0; q < t.width; ++q) {
      const Window columns = t.columns[q];
      for (int64_t v = 0; v < kPixel; v += kF) {
        FV best = hn::Set(d, kAverage ? 0.0f : -infinity<float>());
        for (int64_t y = rows.begin; y < rows.end; ++y) {
          const float* from = t.x + y * t.x_row + columns.begin * kPixel + v;
          for (int64_t x = columns.begin; x < columns.end; ++x, from += kPixel) {
            const FV value = hn::LoadU(d, from);
            best = kAverage ? hn::Add(best, value) : max_of(best, value);
          }
        }
        if (kAverage) {
          best = hn::Div(best, hn::Set(d, static_cast<float>(rows.count * columns.count)));
        }
        hn::StoreU(activate(t.activation, best), d, t.y + p * t.y_row + q * kPixel + v);
      }
    }
  }
}

void pool_layer(const PoolTask& t) { t.average ? pool_windows<true>(t) : pool_windows<false>(t); }

// kind: what is done to a before the activation.
template <class Kind>
void map_pixels(const MapTask& t, const Kind& kind) {
  const F d;
  for (int64_t v = 0; v < kPixel; v += kF) {
    const FV scale = t.scale ? hn::LoadU(d, t.scale + v) : hn::Zero(d);
    const FV shift = t.shift ? hn::LoadU(d, t.shift + v) : hn::Zero(d);
    for (int64_t i = v; i < t.pixels * kPixel; i += kPixel) {
      const FV value = kind(hn::LoadU(d, t.a + i), i, scale, shift);
      hn::StoreU(activate(t.activation, value), d, t.y + i);
    }
  }
}

void map_layer(const MapTask& t) {
  const F d;
  if (t.b && t.multiply) {
    map_pixels(t, [&](FV a, int64_t i, FV, FV) { return hn::Mul(a, hn::LoadU(d, t.b + i)); });
  } else if (t.b) {
    map_pixels(t, [&](FV a, int64_t i, FV, FV) { return hn::Add(a, hn::LoadU(d, t.b + i)); });
  } else if (t.scale && t.shift) {
    map_pixels(t, [](FV a, int64_t, FV scale, FV shift) { return hn::MulAdd(a, scale, shift); });
  } else if (t.scale) {
    map_pixels(t, [](FV a, int64_t, FV scale, FV) { return hn::Mul(a, scale); });
  } else {
    map_pixels(t, [](FV a, int64_t, FV, FV) { return a; });
  }
}

// kRows outputs of kImages images: features in the lanes. Whatever the tile, an
// output is one chain of vectors, the lanes' sum and the bias, in this order.
template <int kRows, int kImages>
HWY_NOINLINE void linear_tile(const LinearTask& t, int64_t row, int64_t image) {
  const F d;
  const float* w = t.weight + row * t.features;
  const float* x = t.x + image * t.x_step;
  FV sum[kRows][kImages];
  CONVSHIP_UNROLL
  for (int r = 0; r < kRows; ++r) {
    CONVSHIP_UNROLL
    for (int i = 0; i < kImages; ++i) sum[r][i] = hn::Zero(d);
  }
  const auto step = [&](const auto& load, int64_t f) HWY_ATTR {
    FV value[kImages];
    CONVSHIP_UNROLL
    for (int i = 0; i < kImages; ++i) value[i] = load(x + i * t.x_step + f);
    CONVSHIP_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const FV weight = load(w + r * t.features + f);
      CONVSHIP_UNROLL
      for (int i = 0; i < kImages; ++i) sum[r][i] = hn::MulAdd(weight, value[i], sum[r][i]);
    }
  };
  int64_t f = 0;
  for (; f + kF <= t.features; f += kF) {
    step([&](const float* from) HWY_ATTR { return hn::LoadU(d, from); }, f);
  }
  if (f < t.features) {
    const int64_t exist = t.features - f;
    step([&](const float* from) HWY_ATTR { return load_some(from, exist); }, f);
  }
  for (int i = 0; i < kImages; ++i) {
    HWY_ALIGN float results[kRows < kF ? kF : kRows] = {};
    CONVSHIP_UNROLL
    for (int r = 0; r < kRows; ++r) {
      results[r] = hn::GetLane(hn::SumOfLanes(d, sum[r][i])) + (t.bias ? t.bias[row + r] : 0.0f);
    }
    float* const y = t.y + (image + i) * t.y_step + row;
    for (int r = 0; r < kRows; r += kF) {
      store_some(activate(t.activation, hn::Load(d, results + r)), y + r, smaller(kF, kRows - r));
    }
  }
}

template <int kRows>
void linear_rows(const LinearTask& t, int64_t row) {
  constexpr int kImages = kRegisters >= 32 ? 4 : 2;
  int64_t image = 0;
  for (; image + kImages <= t.images; image += kImages) {
    linear_tile<kRows, kImages>(t, row, image);
  }
  for (; image < t.images; ++image) linear_tile<kRows, 1>(t, row, image);
}

void linear_layer(const LinearTask& t) {
  int64_t row = t.begin;
  // One image: as many chains as hide a multiply-add's latency.
  if (t.images == 1) {
    for (; row + 8 <= t.end; row += 8) linear_tile<8, 1>(t, row, 0);
  }
  for (; row + 4 <= t.end; row += 4) linear_rows<4>(t, row);
  for (; row < t.end; ++row) linear_rows<1>(t, row);
}

// kColumns results of a row. kWhole: all channels of the vector exist.
template <bool kWhole, int kColumns>
HWY_INLINE void depthwise_tile(const DepthwiseTask& t, int64_t p, int64_t q) {
  const F d;
  const int64_t step = t.stride.w * t.x_column;
  const int64_t channels = kWhole ? kF : t.channels;
  FV sum[kColumns];
  CONVSHIP_UNROLL
  for (int j = 0; j < kColumns; ++j) sum[j] = hn::LoadU(d, t.bias);
  const float* row = t.x + p * t.stride.h * t.x_row + q * step;
  const float* w = t.weight;
  for (int64_t i = 0; i < t.kernel.h; ++i, row += t.dilation.h * t.x_row) {
    const float* from = row;
    for (int64_t k = 0; k < t.kernel.w; ++k, from += t.dilation.w * t.x_column, w += kF) {
      const FV weight = hn::LoadU(d, w);
      CONVSHIP_UNROLL
      for (int j = 0; j < kColumns; ++j) {
        sum[j] = hn::MulAdd(load_some(from + j * step, channels), weight, sum[j]);
      }
    }
  }
  const int64_t at = p * t.y_row + q * t.y_column;
  CONVSHIP_UNROLL
  for (int j = 0; j < kColumns; ++j) {
    FV value = sum[j];
    if (t.residual) {
      value = hn::Add(value, load_some(t.residual + at + j * t.y_column, channels));
    }
    store_some(activate(t.activation, value), t.y + at + j * t.y_column, channels);
  }
}

template <bool kWhole>
void depthwise_rows(const DepthwiseTask& t) {
  for (int64_t p = 0; p < t.size.h; ++p) {
    int64_t q = 0;
    for (; q + 8 <= t.size.w; q += 8) depthwise_tile<kWhole, 8>(t, p, q);
    if (q + 4 <= t.size.w) {
      depthwise_tile<kWhole, 4>(t, p, q);
      q += 4;
    }
    if (q + 2 <= t.size.w) {
      depthwise_tile<kWhole, 2>(t, p, q);
      q += 2;
    }
    if (q < t.size.w) depthwise_tile<kWhole, 1>(t, p, q);
  }
}

void depthwise_layer(const DepthwiseTask& t) {
  t.channels == kF ? depthwise_rows<true>(t) : depthwise_rows<false>(t);
}

constexpr LayerLoops kLayerLoops = {
    .pool = pool_layer, .map = map_layer, .linear = linear_layer, .depthwise = depthwise_layer};
