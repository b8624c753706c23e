#include "kernels/conv2d/strip.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/bfloat16.h"

namespace convship::kernels::conv2d {
namespace {

// Values that neighbour in both places.
template <typename T, typename A>
void copy(const T* from, int64_t count, A* to) {
  if constexpr (std::is_same_v<T, A>) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = Accumulator<T>::widen(from[i]);
  }
}

template <typename T, typename A>
void copy(const T* from, int64_t from_step, int64_t count, A* to, int64_t to_step) {
  if (from_step == 1 && to_step == 1) return copy(from, count, to);
  for (int64_t i = 0; i < count; ++i) to[i * to_step] = Accumulator<T>::widen(from[i * from_step]);
}

template <typename A>
void clear(A* to, int64_t count, int64_t step) {
  for (int64_t i = 0; i < count; ++i) to[i * step] = A(0);
}

}  // namespace

Strip Strip::like(bool channels_adjoin, int64_t channels, int64_t rows, int64_t columns) {
  Strip strip{channels, rows, columns, {}, 0};
  if (channels_adjoin) {
    // Not a multiple of a cache line times a power of two: neighbouring pixels
    // must not fall into the same few sets.
    const int64_t pixel = channels % 64 == 0 ? channels + 16 : channels;
    strip.steps = {nullptr, 0, 1, columns * pixel, pixel};
    strip.size = rows * columns * pixel;
  } else {
    strip.steps = {nullptr, 0, rows * columns, columns, 1};
    strip.size = channels * rows * columns;
  }
  return strip;
}

template <typename T, typename A>
void copy_strip(const Strip& strip,
                const View<const T>& from,
                Pair image,
                int64_t n,
                int64_t c,
                int64_t y,
                int64_t x,
                A* to) {
  const auto& steps = strip.steps;
  // Columns of the strip that are inside of the image.
  const int64_t begin = std::clamp<int64_t>(-x, 0, strip.columns);
  const int64_t end = std::clamp<int64_t>(image.w - x, begin, strip.columns);
  // The shorter of the two inner loops would spend its time on calls.
  const bool by_pixel = from.channels_adjoin() && steps.c_step == 1;
  // Whole rows adjoin where every channel of the image is copied.
  const bool whole = by_pixel && from.block == 1 && from.w_step == strip.channels &&
                     steps.w_step == strip.channels;
  for (int64_t row = 0; row < strip.rows; ++row) {
    const bool inside = y + row >= 0 && y + row < image.h && begin < end;
    if (by_pixel) {
      A* pixels = to + row * steps.h_step;
      const int64_t used = inside ? begin : strip.columns;
      clear(pixels, used * steps.w_step, 1);
      if (!inside) continue;
      clear(pixels + end * steps.w_step, (strip.columns - end) * steps.w_step, 1);
      if (whole) {
        copy(from.at(n, c, y + row, x + begin), (end - begin) * strip.channels,
             pixels + begin * steps.w_step);
        continue;
      }
      for (int64_t column = begin; column < end; ++column) {
        for (int64_t i = 0; i < strip.channels;) {
          const int64_t most = from.block - (c + i) % from.block;
          const int64_t adjoin = from.block == 1 ? strip.channels : most;
          const int64_t count = std::min(adjoin, strip.channels - i);
          copy(from.at(n, c + i, y + row, x + column), count, pixels + column * steps.w_step + i);
          i += count;
        }
      }
      continue;
    }
    for (int64_t i = 0; i < strip.channels; ++i) {
      A* values = to + i * steps.c_step + row * steps.h_step;
      if (!inside) {
        clear(values, strip.columns, steps.w_step);
        continue;
      }
      clear(values, begin, steps.w_step);
      copy(from.at(n, c + i, y + row, x + begin), from.w_step, end - begin,
           values + begin * steps.w_step, steps.w_step);
      clear(values + end * steps.w_step, strip.columns - end, steps.w_step);
    }
  }
}

#define CONVSHIP_INSTANTIATE(T, A)                                                              \
  template void copy_strip(const Strip&, const View<const T>&, Pair, int64_t, int64_t, int64_t, \
                           int64_t, A*);
CONVSHIP_INSTANTIATE(float, float)
CONVSHIP_INSTANTIATE(double, double)
CONVSHIP_INSTANTIATE(BFloat16, float)
#undef CONVSHIP_INSTANTIATE

}  // namespace convship::kernels::conv2d
