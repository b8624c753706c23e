#include "kernels/conv2d/tiles_input.h"

#include <algorithm>
#include <type_traits>

#include "kernels/conv2d/band.h"
#include "kernels/conv2d/tiles.h"

namespace convship::kernels::conv2d {

template <typename T>
TilesInput<T>::TilesInput(const TileLoops& loops,
                          const WordOrder& order,
                          const Geometry& geometry,
                          const View<const T>& input,
                          const Rounding& rounding)
    : loops_(loops),
      order_(order),
      g_(geometry),
      input_(input),
      rounding_(rounding),
      channels_(g_.c_in / g_.groups),
      words_(order.chunk / order.in_word),
      columns_(columns_under(g_)),
      run_words_(conv2d::run_words(words_, g_.kernel, g_.dilation)) {}

// CPUs with tiles have large second-level caches, and each band reads all weights again. With a
// row comes its share of the results, which are narrowed from a buffer.
template <typename T>
int64_t TilesInput<T>::row_bytes() const {
  constexpr int64_t kWide = 32;  // channels of a block
  const int64_t row = order_.channels / order_.in_word * columns_;
  const int64_t results =
      std::is_same_v<T, float> ? 0 : kWide * g_.pooled.h * g_.pooled.w / g_.image.h;
  const int64_t bytes = (row + results) * static_cast<int64_t>(sizeof(float));
  const int64_t band = std::max(kBandBytes, second_level_cache() / 4);
  return std::max<int64_t>(1, bytes * kBandBytes / band);
}

template <typename T>
int64_t TilesInput<T>::size() const {
  return rows_ * columns_ * order_.channels / order_.in_word;
}

template <typename T>
void TilesInput<T>::set_rows(int64_t rows) {
  rows_ = rows;
  steps_ = {nullptr, 0, rows * columns_ * words_, columns_ * words_, words_, words_};
}

template <typename T>
std::vector<int32_t> TilesInput<T>::offsets() const {
  std::vector<int32_t> offsets;
  offsets.reserve(order_.count(g_.kernel));
  order_.for_each(g_.kernel, [&](int64_t c, int64_t i, int64_t j) {
    offsets.push_back(static_cast<int32_t>(steps_.channel(c / order_.in_word) +
                                           i * g_.dilation.h * steps_.h_step +
                                           j * g_.dilation.w * steps_.w_step));
  });
  return offsets;
}

template <typename T>
const float* TilesInput<T>::band(int64_t n, int64_t group, int64_t y, float* memory) const {
  const TilesCopy<T> copy{
      band_of(input_, g_, n, group * channels_, channels_, y, {rows_, columns_}),
      levels_of(rounding_), words_};
  if constexpr (std::is_same_v<T, float>) {
    loops_.copy(copy, memory);
  } else {
    loops_.copy_bfloat16(copy, memory);
  }
  return memory;
}

template class TilesInput<float>;
template class TilesInput<BFloat16>;

}  // namespace convship::kernels::conv2d
