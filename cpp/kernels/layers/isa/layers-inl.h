// Pooling, elementwise layers, linear layers and groups over vectors of
// floats. Included once by each file that is compiled for an instruction set of
// its own.

using F = hn::ScalableTag<float>;
using FV = hn::Vec<F>;
constexpr int64_t kF = hn::MaxLanes(F());
constexpr int64_t kPixel = 16;

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

// make(begin, end, activation) writes the pixels from begin to end of y, with an activation of
// a few instructions. Others, of a polynomial, follow each piece while it is in the cache: a
// call for every vector would cost more than they do.
template <class Make>
HWY_INLINE void in_pieces(const Activation& activation,
                          float* y,
                          int64_t pixels,
                          const Make& make) {
  const bool is_short = activate_shortly<F>(activation, [](const auto&) {});
  const Activation at_once = is_short ? activation : Activation();
  const int64_t piece = is_short ? pixels : 64;
  for (int64_t begin = 0; begin < pixels; begin += piece) {
    const int64_t end = smaller(begin + piece, pixels);
    make(begin, end, at_once);
    if (!is_short) {
      activate_in_memory(F(), activation, y + begin * kPixel, (end - begin) * kPixel);
    }
  }
}

// For `make` above.
HWY_INLINE void store_activated(const Activation& activation, FV value, float* to) {
  activate_shortly<F>(activation, [&](const auto& function) { value = function(value); });
  hn::StoreU(value, F(), to);
}

// kind: what is done to a before the activation.
template <class Kind>
void map_pixels(const MapTask& t, const Kind& kind) {
  const F d;
  in_pieces(t.activation, t.y, t.pixels,
            [&](int64_t begin, int64_t end, const Activation& activation) {
              for (int64_t v = 0; v < kPixel; v += kF) {
                const FV scale = t.scale ? hn::LoadU(d, t.scale + v) : hn::Zero(d);
                const FV shift = t.shift ? hn::LoadU(d, t.shift + v) : hn::Zero(d);
                for (int64_t i = begin * kPixel + v; i < end * kPixel; i += kPixel) {
                  const FV value = kind(hn::LoadU(d, t.a + i), i, scale, shift);
                  store_activated(activation, value, t.y + i);
                }
              }
            });
}

void map_layer(const MapTask& t) {
  const F d;
  if (t.slope) {
    for (int64_t v = 0; v < kPixel; v += kF) {
      const FV slope = hn::LoadU(d, t.slope + v);
      for (int64_t i = v; i < t.pixels * kPixel; i += kPixel) {
        const FV a = hn::LoadU(d, t.a + i);
        const FV below = hn::Mul(a, slope);
        hn::StoreU(hn::IfThenElse(hn::Gt(a, hn::Zero(d)), a, below), d, t.y + i);
      }
    }
  } else if (t.b && t.scale) {
    map_pixels(t, [&](FV a, int64_t i, FV scale, FV shift) {
      return hn::Add(hn::MulAdd(a, scale, shift), hn::LoadU(d, t.b + i));
    });
  } else if (t.b) {
    map_pixels(t, [&](FV a, int64_t i, FV, FV) { return hn::Add(a, hn::LoadU(d, t.b + i)); });
  } else if (t.scale) {
    map_pixels(t, [](FV a, int64_t, FV scale, FV shift) { return hn::MulAdd(a, scale, shift); });
  } else {
    map_pixels(t, [](FV a, int64_t, FV, FV) { return a; });
  }
}

// visit(load), where load(i) is the vector of the operand's channels from v on of pixel i.
template <class Visit>
HWY_INLINE void with_operand(const CombineTask::Operand& x, int64_t v, const Visit& visit) {
  const F d;
  if (x.step == 0) {
    const FV all = x.one_channel ? hn::Set(d, *x.data) : hn::LoadU(d, x.data + v);
    visit([all](int64_t) { return all; });
  } else if (x.one_channel) {
    visit([d, x](int64_t i) { return hn::Set(d, x.data[i * x.step]); });
  } else {
    visit([d, x, v](int64_t i) { return hn::LoadU(d, x.data + i * x.step + v); });
  }
}

template <class Operator>
void combine_pixels(const CombineTask& t, const Operator& combine) {
  in_pieces(t.activation, t.y, t.pixels,
            [&](int64_t begin, int64_t end, const Activation& activation) {
              for (int64_t v = 0; v < kPixel; v += kF) {
                with_operand(t.a, v, [&](const auto& a) {
                  with_operand(t.b, v, [&](const auto& b) {
                    for (int64_t i = begin; i < end; ++i) {
                      store_activated(activation, combine(a(i), b(i)), t.y + i * kPixel + v);
                    }
                  });
                });
              }
            });
}

void combine_layer(const CombineTask& t) {
  switch (t.how) {
    case CombineTask::How::add:
      return combine_pixels(t, [](FV a, FV b) { return hn::Add(a, b); });
    case CombineTask::How::subtract:
      return combine_pixels(t, [](FV a, FV b) { return hn::Sub(a, b); });
    case CombineTask::How::multiply:
      return combine_pixels(t, [](FV a, FV b) { return hn::Mul(a, b); });
    case CombineTask::How::divide:
      return combine_pixels(t, [](FV a, FV b) { return hn::Div(a, b); });
    case CombineTask::How::maximum:
      return combine_pixels(t, [](FV a, FV b) { return max_of(a, b); });
    case CombineTask::How::minimum:
      return combine_pixels(t, [](FV a, FV b) { return min_of(a, b); });
  }
}

// visit(value, c, exist) for every vector of a pixel's existing channels.
template <class Visit>
HWY_INLINE void for_channels(const float* pixel,
                             int64_t block,
                             int64_t channels,
                             const Visit& visit) {
  const F d;
  for (int64_t c = 0; c < channels; c += kF) {
    const auto exist = hn::FirstN(d, static_cast<size_t>(smaller(kF, channels - c)));
    visit(hn::LoadU(d, pixel + c / kPixel * block + c % kPixel), c, exist);
  }
}

// The largest lane, or NaN where there is one.
HWY_INLINE float most_of_lanes(FV values) {
  HWY_ALIGN float lanes[kF];
  hn::Store(values, F(), lanes);
  float most = lanes[0];
  for (int64_t i = 1; i < kF; ++i) most = lanes[i] > most || lanes[i] != lanes[i] ? lanes[i] : most;
  return most;
}

void across_layer(const AcrossTask& t) {
  const F d;
  const FV none = hn::Set(d, t.maximum ? -infinity<float>() : 0.0f);
  for (int64_t i = 0; i < t.pixels; ++i) {
    FV all = none;
    for_channels(t.x + i * kPixel, t.x_block, t.channels, [&](FV x, int64_t, auto exist) HWY_ATTR {
      const FV value = hn::IfThenElse(exist, x, none);
      all = t.maximum ? max_of(all, value) : hn::Add(all, value);
    });
    float* const y = t.y + i * kPixel;
    for (int64_t v = 0; v < kPixel; v += kF) hn::StoreU(hn::Zero(d), d, y + v);
    *y = t.maximum ? most_of_lanes(all) : hn::GetLane(hn::SumOfLanes(d, all)) / t.divisor;
  }
}

// Relative to the largest no exponential overflows; NaN and +inf make all of a pixel NaN,
// as in torch.
void softmax_layer(const SoftmaxTask& t) {
  const F d;
  const FV lowest = hn::Set(d, -87.0f);
  for (int64_t i = 0; i < t.pixels; ++i) {
    const float* const x = t.x + i * kPixel;
    float* const y = t.y + i * kPixel;
    FV all = hn::Set(d, -infinity<float>());
    for_channels(x, t.x_block, t.channels, [&](FV value, int64_t, auto exist) HWY_ATTR {
      all = hn::IfThenElse(exist, max_of(all, value), all);
    });
    const FV most = hn::Set(d, most_of_lanes(all));
    FV sum = hn::Zero(d);
    for_channels(x, t.x_block, t.channels, [&](FV value, int64_t c, auto exist) HWY_ATTR {
      const FV difference = hn::Sub(value, most);
      const FV power = hn::IfThenElse(hn::Lt(difference, lowest), hn::Zero(d),
                                      exp(d, within(d, 87.0f, difference)));
      sum = hn::Add(sum, hn::IfThenElseZero(exist, power));
      hn::StoreU(t.logarithm ? difference : power, d, y + c / kPixel * t.y_block + c % kPixel);
    });
    sum = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, sum)));
    FV last = hn::Div(hn::Set(d, 1.0f), sum);
    if (t.logarithm) last = hn::IfThenElse(hn::IsNaN(sum), sum, hn::Log(d, sum));
    for_channels(y, t.y_block, t.channels, [&](FV value, int64_t c, auto) HWY_ATTR {
      const FV result = t.logarithm ? hn::Sub(value, last) : hn::Mul(value, last);
      hn::StoreU(result, d, y + c / kPixel * t.y_block + c % kPixel);
    });
  }
}

// kPixels neighbours together, so that their sums are independent; each one's is a chain
// of vectors and the lanes' sum, in this order.
template <int kPixels>
HWY_NOINLINE void normalize_pixels(const NormalizeTask& t, int64_t pixel) {
  const F d;
  // visit(i, value, c, exist) for every vector of existing channels of every pixel.
  const auto for_vectors = [&](const auto& visit) HWY_ATTR {
    for (int64_t c = 0; c < t.channels; c += kF) {
      const auto exist = hn::FirstN(d, static_cast<size_t>(smaller(kF, t.channels - c)));
      const float* x = t.x + c / kPixel * t.x_block + c % kPixel + pixel * kPixel;
      CONVSHIP_UNROLL
      for (int i = 0; i < kPixels; ++i) visit(i, hn::LoadU(d, x + i * kPixel), c, exist);
    }
  };
  const FV count = hn::Set(d, static_cast<float>(t.channels));
  FV mean[kPixels], scale[kPixels];
  for (int i = 0; i < kPixels; ++i) mean[i] = scale[i] = hn::Zero(d);
  for_vectors([&](int i, FV x, int64_t, auto exist)
                  HWY_ATTR { mean[i] = hn::Add(mean[i], hn::IfThenElseZero(exist, x)); });
  for (int i = 0; i < kPixels; ++i) mean[i] = hn::Div(hn::SumOfLanes(d, mean[i]), count);
  for_vectors([&](int i, FV x, int64_t, auto exist) HWY_ATTR {
    const FV difference = hn::IfThenElseZero(exist, hn::Sub(x, mean[i]));
    scale[i] = hn::MulAdd(difference, difference, scale[i]);
  });
  for (int i = 0; i < kPixels; ++i) {
    const FV variance = hn::Div(hn::SumOfLanes(d, scale[i]), count);
    const FV deviation = hn::Sqrt(hn::Add(variance, hn::Set(d, t.epsilon)));
    scale[i] = hn::Div(hn::Set(d, 1.0f), deviation);
  }
  for_vectors([&](int i, FV x, int64_t c, auto) HWY_ATTR {
    const FV normal = hn::Mul(hn::Sub(x, mean[i]), scale[i]);
    const FV result = hn::MulAdd(normal, hn::LoadU(d, t.scale + c), hn::LoadU(d, t.shift + c));
    hn::StoreU(result, d, t.y + c / kPixel * t.y_block + c % kPixel + (pixel + i) * kPixel);
  });
}

void normalize_layer(const NormalizeTask& t) {
  int64_t pixel = 0;
  for (; pixel + 4 <= t.pixels; pixel += 4) normalize_pixels<4>(t, pixel);
  for (; pixel < t.pixels; ++pixel) normalize_pixels<1>(t, pixel);
}

// Four chains, for each channel's sum; then the same for its squares.
void moments_layer(const MomentsTask& t) {
  constexpr int64_t kChains = 4;
  const F d;
  const auto sum = [&](int64_t v, const auto& value) HWY_ATTR {
    FV chains[kChains];
    for (FV& chain : chains) chain = hn::Zero(d);
    const float* x = t.x + v;
    int64_t i = 0;
    for (; i + kChains <= t.pixels; i += kChains) {
      CONVSHIP_UNROLL
      for (int64_t k = 0; k < kChains; ++k) {
        chains[k] = hn::Add(chains[k], value(hn::LoadU(d, x + (i + k) * kPixel)));
      }
    }
    for (; i < t.pixels; ++i) {
      chains[0] = hn::Add(chains[0], value(hn::LoadU(d, x + i * kPixel)));
    }
    return hn::Add(hn::Add(chains[0], chains[1]), hn::Add(chains[2], chains[3]));
  };
  for (int64_t v = 0; v < kPixel; v += kF) {
    const FV whole = sum(v, [](FV x) { return x; });
    const FV mean = hn::Div(whole, hn::Set(d, static_cast<float>(t.pixels)));
    const FV squares = sum(v, [&](FV x) HWY_ATTR {
      const FV distance = hn::Sub(x, mean);
      return hn::Mul(distance, distance);
    });
    hn::StoreU(whole, d, t.sum + v);
    hn::StoreU(squares, d, t.squares + v);
  }
}

void interpolate_layer(const InterpolateTask& t) {
  const F d;
  const FV one = hn::Set(d, 1.0f);
  for (int64_t p = t.begin; p < t.end; ++p) {
    const Between row = t.rows[p];
    const float* const upper = t.x + row.first * t.x_row;
    const float* const lower = t.x + row.second * t.x_row;
    const FV down = hn::Set(d, row.share), up = hn::Sub(one, down);
    float* y = t.y + p * t.y_row;
    for (int64_t q = 0; q < t.width; ++q, y += kPixel) {
      const Between column = t.columns[q];
      const int64_t left = column.first * kPixel, right = column.second * kPixel;
      const FV to_right = hn::Set(d, column.share), to_left = hn::Sub(one, to_right);
      const auto across = [&](const float* from) HWY_ATTR {
        return hn::MulAdd(to_left, hn::LoadU(d, from + left),
                          hn::Mul(to_right, hn::LoadU(d, from + right)));
      };
      for (int64_t v = 0; v < kPixel; v += kF) {
        hn::StoreU(hn::MulAdd(up, across(upper + v), hn::Mul(down, across(lower + v))), d, y + v);
      }
    }
  }
}

// Weights of a linear layer as floats, whatever they are in memory.
HWY_INLINE FV load_weights(const float* from) { return hn::LoadU(F(), from); }
HWY_INLINE FV load_weights(const BFloat16* from) {
  const hn::Rebind<uint16_t, F> half;
  const hn::Rebind<uint32_t, F> bits;
  const auto* values = reinterpret_cast<const uint16_t*>(from);
  return hn::BitCast(F(), hn::ShiftLeft<16>(hn::PromoteTo(bits, hn::LoadU(half, values))));
}
HWY_INLINE FV load_weights(const int8_t* from) {
  const hn::Rebind<int32_t, F> wide;
  return hn::ConvertTo(F(), hn::PromoteTo(wide, hn::LoadU(hn::Rebind<int8_t, F>(), from)));
}
HWY_INLINE FV load_some_weights(const float* from, int64_t exist) {
  return load_some(F(), from, exist);
}
template <typename W>
HWY_INLINE FV load_some_weights(const W* from, int64_t exist) {
  W values[kF] = {};
  for (int64_t i = 0; i < exist; ++i) values[i] = from[i];
  return load_weights(values);
}

// Lanes of kCount vectors are summed, neighbour with neighbour, and so are these
// sums, until kCount sums are left side by side in the first vectors. Two shuffles
// serve two vectors, where a sum of one vector's lanes takes as many.
template <int kCount, int kLanesEach>
HWY_INLINE void sum_lanes(FV* values) {
  if constexpr (kLanesEach > 1) {
    const F d;
    constexpr int kLeft = (kCount + 1) / 2;
    unrolled<kLeft>([&](auto i) CONVSHIP_INLINE {
      const FV a = values[2 * i], b = values[2 * i + 1 < kCount ? 2 * i + 1 : 2 * i];
      values[i] = hn::Add(hn::ConcatEven(d, b, a), hn::ConcatOdd(d, b, a));
    });
    sum_lanes<kLeft, kLanesEach / 2>(values);
  }
}

// kRows outputs of kImages images: features in the lanes. Whatever the tile, an
// output is one chain of vectors, the lanes' sum and the bias, in this order.
template <int kRows, int kImages, typename W>
HWY_NOINLINE void linear_tile(const LinearTask& t, const W* weight, int64_t row, int64_t image) {
  const F d;
  const W* w = weight + row * t.features;
  const float* x = t.x + image * t.x_step;
  FV sum[kRows][kImages];
  unrolled_array<kRows, kImages>([&](auto r, auto i) CONVSHIP_INLINE { sum[r][i] = hn::Zero(d); });
  const auto step = [&](const auto& load, const auto& load_row, int64_t f) CONVSHIP_INLINE {
    FV value[kImages];
    unrolled<kImages>([&](auto i) CONVSHIP_INLINE { value[i] = load(x + i * t.x_step + f); });
    unrolled<kRows>([&](auto r) CONVSHIP_INLINE {
      const FV row_weights = load_row(w + r * t.features + f);
      unrolled<kImages>([&](auto i) CONVSHIP_INLINE {
        sum[r][i] = hn::MulAdd(row_weights, value[i], sum[r][i]);
      });
    });
  };
  int64_t f = 0;
  for (; f + kF <= t.features; f += kF) {
    step([&](const float* from) HWY_ATTR { return hn::LoadU(d, from); },
         [&](const W* from) HWY_ATTR { return load_weights(from); }, f);
  }
  if (f < t.features) {
    const int64_t exist = t.features - f;
    step([&](const float* from) HWY_ATTR { return load_some(d, from, exist); },
         [&](const W* from) HWY_ATTR { return load_some_weights(from, exist); }, f);
  }
  FV total[kImages * kRows];
  unrolled_array<kRows, kImages>([&](auto r, auto i)
                                     CONVSHIP_INLINE { total[i * kRows + r] = sum[r][i]; });
  sum_lanes<kImages * kRows, kF>(total);
  HWY_ALIGN float totals[(kImages * kRows + kF - 1) / kF * kF];
  for (int i = 0; i < kImages * kRows; i += kF) hn::Store(total[i / kF], d, totals + i);
  for (int i = 0; i < kImages; ++i) {
    float* const y = t.y + (image + i) * t.y_step + row;
    for (int r = 0; r < kRows; r += kF) {
      const int64_t exist = smaller(kF, kRows - r);
      FV result = load_some(d, totals + i * kRows + r, exist);
      if (sizeof(W) == 1) result = hn::Mul(result, load_some(d, t.scale + row + r, exist));
      if (t.bias) result = hn::Add(result, load_some(d, t.bias + row + r, exist));
      store_some(d, activate(t.activation, result), y + r, exist);
    }
  }
}

constexpr int kLinearImages = kRegisters >= 32 ? 4 : 3;

// Rows [begin, end) of images [first, last).
template <typename W>
void linear_block(
    const LinearTask& t, const W* weight, int64_t begin, int64_t end, int64_t first, int64_t last) {
  const auto rows = [&](auto count) HWY_ATTR {
    for (; begin + count <= end; begin += count) {
      int64_t i = first;
      for (; i + kLinearImages <= last; i += kLinearImages) {
        linear_tile<count, kLinearImages>(t, weight, begin, i);
      }
      if constexpr (kLinearImages > 2) {
        for (; i + 2 <= last; i += 2) linear_tile<count, 2>(t, weight, begin, i);
      }
      for (; i < last; ++i) linear_tile<count, 1>(t, weight, begin, i);
    }
  };
  // One image: as many chains as hide a multiply-add's latency.
  if (t.images == 1) {
    for (; begin + 8 <= end; begin += 8) linear_tile<8, 1>(t, weight, begin, 0);
  }
  rows(Number<4>());
  rows(Number<1>());
}

template <typename W>
void linear_with(const LinearTask& t, const W* weight) {
  // Images that stay in the first-level cache while rows pass, and rows that stay in the
  // second-level one while images do.
  constexpr int64_t kImageBytes = 16 << 10, kRowBytes = 128 << 10;
  const auto at_once = [&](int64_t bytes, int64_t value, int64_t tile) {
    return larger(bytes / (larger(t.features, 1) * value) / tile, 1) * tile;
  };
  const int64_t images = at_once(kImageBytes, sizeof(float), kLinearImages);
  const int64_t rows = at_once(kRowBytes, sizeof(W), 8);
  for (int64_t row = t.begin; row < t.end; row += rows) {
    for (int64_t i = 0; i < t.images; i += images) {
      linear_block(t, weight, row, smaller(row + rows, t.end), i, smaller(i + images, t.images));
    }
  }
}

void linear_layer(const LinearTask& t) {
  if (t.weight_bfloat16) return linear_with(t, t.weight_bfloat16);
  if (t.weight_int8) return linear_with(t, t.weight_int8);
  linear_with(t, t.weight);
}

// Columns of the input under `results` results of a row.
HWY_INLINE int64_t columns_under(const GroupsTask& t, int64_t results) {
  return (results - 1) * t.stride.w + (t.kernel.w - 1) * t.dilation.w + 1;
}

// What is summed: rows and columns of an image, or of a strip, which has all
// channels of a vector.
struct GroupsSource {
  const float* x;  // of the first tap of the first result, which may be outside
  int64_t row;
  int64_t column;
  int64_t first;  // x's column
  int64_t width;  // columns [0, width) exist
};

// A copy of the rows in the image and of all columns under the results, with zeros for
// columns outside.
HWY_INLINE GroupsSource copy_into_strip(const GroupsTask& t) {
  const F d;
  const int64_t rows = (t.size.h - 1) * t.stride.h + (t.kernel.h - 1) * t.dilation.h + 1;
  const int64_t columns = columns_under(t, t.size.w), first = t.corner.w;
  const int64_t left = smaller(larger(-first, 0), columns);
  const int64_t right = larger(left, smaller(t.image.w - first, columns));
  const int64_t top = larger(-t.corner.h, 0), bottom = smaller(t.image.h - t.corner.h, rows);
  const int64_t column = t.x_column, channels = t.channels;  // stores could change t's
  for (int64_t i = top; i < bottom; ++i) {
    float* to = t.strip + i * columns * kF;
    const float* from = t.x + (t.corner.h + i) * t.x_row + first * t.x_column;
    for (int64_t j = 0; j < left; ++j) hn::StoreU(hn::Zero(d), d, to + j * kF);
    for (int64_t j = left; j < right; ++j) {
      hn::StoreU(load_some(d, from + j * column, channels), d, to + j * kF);
    }
    for (int64_t j = right; j < columns; ++j) hn::StoreU(hn::Zero(d), d, to + j * kF);
  }
  return {t.strip, columns * kF, kF, 0, columns};
}

// Residual, activation and the way out. Decided once for all columns: beside so
// few multiplications a decision each would show. kWhole: all channels of the vector exist.
template <bool kWhole, int kColumns>
HWY_INLINE void finish_tile(const GroupsTask& t, FV* sum, int64_t at) {
  const F d;
  const int64_t column = t.y_column, channels = kWhole ? kF : t.channels;
  CONVSHIP_UNROLL
  for (int j = 0; j < kColumns; ++j) sum[j] = without_minus_zero(sum[j]);
  if (t.residual) {
    const float* residual = t.residual + at;
    for (int j = 0; j < kColumns; ++j) {
      sum[j] = hn::Add(sum[j], load_some(d, residual + j * column, channels));
    }
  }
  activate_all<kColumns>(t.activation, sum);
  float* y = t.y + at;
  CONVSHIP_UNROLL
  for (int j = 0; j < kColumns; ++j) store_some(d, sum[j], y + j * column, channels);
}

// The same at an edge, from memory: a copy of it in each such tile would take compilers longer
// than its sums.
template <bool kWhole, int kColumns>
HWY_NOINLINE void finish_edge(const GroupsTask& t, const float* sums, int64_t at) {
  FV sum[kColumns];
  CONVSHIP_UNROLL
  for (int j = 0; j < kColumns; ++j) sum[j] = hn::Load(F(), sums + j * kF);
  finish_tile<kWhole, kColumns>(t, sum, at);
}

// Channel k of each group of kWidth in all lanes of its group; x is what lies at
// `from`.
template <int kWidth, int k>
HWY_INLINE FV of_group(FV x, const float* from) {
  if constexpr (kWidth == 1) {
    return x;
  } else if constexpr (kWidth == kF) {
    return hn::Set(F(), from[k]);
  } else if constexpr (kWidth == 2) {
    return k == 0 ? hn::DupEven(x) : hn::DupOdd(x);
  } else if constexpr (kWidth == 4) {
    return hn::Broadcast<k>(x);  // within blocks of four
  } else {
    HWY_ALIGN int32_t lanes[kF];
    for (int i = 0; i < kF; ++i) lanes[i] = i / kWidth * kWidth + k;
    return hn::TableLookupLanes(x, hn::SetTableIndices(F(), lanes));
  }
}

// Rows of the kernel that meet the image; others would add zeros.
struct KernelRows {
  int64_t begin;
  int64_t end;

  KernelRows(const GroupsTask& t, int64_t p) : begin(0), end(t.kernel.h) {
    // Steps, since divisions would show beside a short row.
    int64_t y = t.corner.h + p * t.stride.h;
    for (; y < 0 && begin < end; y += t.dilation.h) ++begin;
    y += (end - begin - 1) * t.dilation.h;
    for (; y >= t.image.h && begin < end; y -= t.dilation.h) --end;
  }
};

// kColumns results of a row. kWhole: all channels of x's vector exist. kTaps: the
// kernel's width where neighbouring results look at neighbouring columns, so
// that a column is loaded once for all of them; else 0. kEdge: some columns may be outside.
template <bool kWhole, int kWidth, int kTaps, int kColumns, bool kEdge>
HWY_INLINE void groups_tile(
    const GroupsTask& t, const GroupsSource& source, const KernelRows& rows, int64_t p, int64_t q) {
  const F d;
  const int64_t step = t.stride.w * source.column;
  const int64_t channels = kWhole ? kF : t.channels;
  const int64_t left = source.first + q * t.stride.w;
  // The column that is `at` behind the first one.
  const auto is_outside = [&](int64_t at, bool may_be_left, bool may_be_right) HWY_ATTR {
    return (may_be_left && left + at < 0) || (may_be_right && left + at >= source.width);
  };
  FV sum[kColumns];
  CONVSHIP_UNROLL
  for (int j = 0; j < kColumns; ++j) sum[j] = hn::LoadU(d, t.bias);
  const int64_t below = p * t.stride.h + rows.begin * t.dilation.h;
  const float* row = source.x + below * source.row + q * step;
  const float* w = t.weight + rows.begin * t.kernel.w * kWidth * kF;
  for (int64_t i = rows.begin; i < rows.end; ++i, row += t.dilation.h * source.row) {
    if constexpr (kTaps > 0) {
      FV weight[kTaps * kWidth];
      CONVSHIP_UNROLL
      for (int k = 0; k < kTaps * kWidth; ++k, w += kF) weight[k] = hn::LoadU(d, w);
      CONVSHIP_UNROLL
      for (int c = 0; c < kColumns + kTaps - 1; ++c) {
        // Every window has a column in the image (see GroupsTask::strip).
        if (is_outside(c * t.stride.w, kEdge && c < kTaps - 1, kEdge && c >= kColumns)) continue;
        const FV column = load_some(d, row + c * step, channels);
        unrolled<kWidth>([&](auto channel) CONVSHIP_INLINE {
          const FV value = of_group<kWidth, channel>(column, row + c * step);
          CONVSHIP_UNROLL
          for (int k = 0; k < kTaps; ++k) {
            const int j = c - k;
            if (j < 0 || j >= kColumns) continue;
            sum[j] = hn::MulAdd(value, weight[k * kWidth + channel], sum[j]);
          }
        });
      }
    } else {
      const float* from = row;
      for (int64_t k = 0; k < t.kernel.w; ++k, from += t.dilation.w * source.column) {
        FV weight[kWidth];
        CONVSHIP_UNROLL
        for (int c = 0; c < kWidth; ++c, w += kF) weight[c] = hn::LoadU(d, w);
        CONVSHIP_UNROLL
        for (int j = 0; j < kColumns; ++j) {
          if (is_outside(j * t.stride.w + k * t.dilation.w, kEdge, kEdge)) continue;
          const FV column = load_some(d, from + j * step, channels);
          unrolled<kWidth>([&](auto channel) CONVSHIP_INLINE {
            const FV value = of_group<kWidth, channel>(column, from + j * step);
            sum[j] = hn::MulAdd(value, weight[channel], sum[j]);
          });
        }
      }
    }
  }
  const int64_t at = p * t.y_row + q * t.y_column;
  if constexpr (kEdge) {
    HWY_ALIGN float sums[kColumns * kF];
    CONVSHIP_UNROLL
    for (int j = 0; j < kColumns; ++j) hn::Store(sum[j], d, sums + j * kF);
    finish_edge<kWhole, kColumns>(t, sums, at);
  } else {
    finish_tile<kWhole, kColumns>(t, sum, at);
  }
}

// At the edge of a row, at most kColumns results.
template <bool kWhole, int kWidth, int kTaps, int kColumns>
HWY_INLINE void groups_edge(const GroupsTask& t,
                            const GroupsSource& source,
                            const KernelRows& rows,
                            int64_t p,
                            int64_t q,
                            int64_t count) {
  if constexpr (kColumns > 1) {
    if (count < kColumns) {
      return groups_edge<kWhole, kWidth, kTaps, kColumns - 1>(t, source, rows, p, q, count);
    }
  }
  groups_tile<kWhole, kWidth, kTaps, kColumns, true>(t, source, rows, p, q);
}

template <bool kWhole, int kWidth, int kTaps>
HWY_NOINLINE void groups_rows(const GroupsTask& t, const GroupsSource& source) {
  constexpr int kTile = 8;  // results
  // Results [begin, end) have no column outside.
  const int64_t step = t.stride.w, last = source.width - columns_under(t, 1) - source.first;
  const int64_t begin = source.first < 0 ? (-source.first + step - 1) / step : 0;
  const int64_t end = smaller(last < 0 ? 0 : last / step + 1, t.size.w);
  for (int64_t p = 0; p < t.size.h; ++p) {
    const KernelRows rows(t, p);
    for (int64_t q = 0; q < t.size.w; q += kTile) {
      if (q >= begin && q + kTile <= end) {
        groups_tile<kWhole, kWidth, kTaps, kTile, false>(t, source, rows, p, q);
      } else {
        groups_edge<kWhole, kWidth, kTaps, kTile>(t, source, rows, p, q, t.size.w - q);
      }
    }
  }
}

template <bool kWhole, int kWidth>
void groups_sums(const GroupsTask& t, const GroupsSource& source) {
  const bool adjoin = t.stride.w == t.dilation.w;
  // With more channels the weights of a kernel row are too many for registers.
  if constexpr (kWidth <= 4) {
    if (adjoin && t.kernel.w == 3) return groups_rows<kWhole, kWidth, 3>(t, source);
  }
  if constexpr (kWidth == 1) {
    if (adjoin && t.kernel.w == 5) return groups_rows<kWhole, kWidth, 5>(t, source);
    if (adjoin && t.kernel.w == 7) return groups_rows<kWhole, kWidth, 7>(t, source);
  }
  groups_rows<kWhole, kWidth, 0>(t, source);
}

HWY_INLINE GroupsSource source_of(const GroupsTask& t) {
  if (t.strip) return copy_into_strip(t);
  const float* first = t.x + t.corner.h * t.x_row + t.corner.w * t.x_column;
  return {first, t.x_row, t.x_column, t.corner.w, t.image.w};
}

template <int kWidth>
void groups_of(const GroupsTask& t) {
  if (kWidth == kF || t.channels == kF) {
    groups_sums<true, kWidth>(t, source_of(t));
  } else {
    groups_sums<false, kWidth>(t, source_of(t));
  }
}

void groups_layer(const GroupsTask& t) {
  switch (t.width) {
    case 1:
      return groups_of<1>(t);
    case 2:
      return groups_of<2>(t);
    case 4:
      return groups_of<4>(t);
    case 8:
      if constexpr (kF >= 8) groups_of<8>(t);
      return;
    case 16:
      if constexpr (kF >= 16) groups_of<16>(t);
      return;
  }
}
