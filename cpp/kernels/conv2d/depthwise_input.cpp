#include "kernels/conv2d/depthwise_input.h"

#include <limits>

#include "kernels/conv2d/band.h"
#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/taps.h"

namespace convship::kernels::conv2d {

template <typename T>
DepthwiseInput<T>::DepthwiseInput(const Loops<T>& loops,
                                  const Geometry& geometry,
                                  const View<const T>& input)
    : loops_(loops),
      g_(geometry),
      input_(input),
      columns_(columns_under(g_)),
      in_place_(is_in_place()) {}

// Every vector is whole and its channels adjoin.
template <typename T>
bool DepthwiseInput<T>::is_in_place() const {
  const bool adjoin = input_.block == 1 ? input_.c_step == 1 : input_.block % loops_.lanes == 0;
  const int64_t reach = g_.image.h * input_.h_step + g_.image.w * input_.w_step;
  return adjoin && g_.c_out % loops_.lanes == 0 && !is_padded(g_) &&
         reach < std::numeric_limits<int32_t>::max();
}

template <typename T>
int64_t DepthwiseInput<T>::row_bytes() const {
  return in_place_ ? 0 : columns_ * loops_.lanes * static_cast<int64_t>(sizeof(T));
}

template <typename T>
void DepthwiseInput<T>::set_rows(int64_t rows) {
  rows_ = rows;
  const int64_t lanes = loops_.lanes;
  steps_ = in_place_ ? View<const void>{nullptr, 0, 1, input_.h_step, input_.w_step}
                     : View<const void>{nullptr, 0, 1, columns_ * lanes, lanes};
}

template <typename T>
int64_t DepthwiseInput<T>::size() const {
  return in_place_ ? 0 : rows_ * columns_ * loops_.lanes;
}

template <typename T>
std::vector<int32_t> DepthwiseInput<T>::offsets() const {
  std::vector<int32_t> offsets;
  for_each_tap(1, g_.kernel, [&](int64_t, int64_t i, int64_t j) {
    offsets.push_back(static_cast<int32_t>(i * g_.dilation.h * steps_.h_step +
                                           j * g_.dilation.w * steps_.w_step));
  });
  return offsets;
}

template <typename T>
const T* DepthwiseInput<T>::band(int64_t n, int64_t vector, int64_t y, T* memory) const {
  const int64_t c = vector * loops_.lanes;
  if (in_place_) return input_.at(n, c, y, 0);
  const int64_t channels = std::min<int64_t>(loops_.lanes, g_.c_out - c);
  loops_.interleave(band_of(input_, g_, n, c, channels, y, {rows_, columns_}), memory);
  return memory;
}

template class DepthwiseInput<float>;
template class DepthwiseInput<double>;

}  // namespace convship::kernels::conv2d
