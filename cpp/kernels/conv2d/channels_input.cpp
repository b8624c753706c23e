#include "kernels/conv2d/channels_input.h"

#include <limits>
#include <type_traits>

#include "kernels/conv2d/band.h"
#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/taps.h"

namespace convship::kernels::conv2d {

template <typename T>
ChannelsInput<T>::ChannelsInput(const Loops<A>& loops,
                                const Geometry& geometry,
                                const View<const T>& input)
    : loops_(loops),
      g_(geometry),
      input_(input),
      channels_(g_.c_in / g_.groups),
      columns_(columns_under(g_)),
      way_(choose()) {}

template <typename T>
typename ChannelsInput<T>::Way ChannelsInput<T>::choose() const {
  if constexpr (!std::is_same_v<T, A>) return Way::copy;
  // Planes of a power of two apart share a few sets of the cache: many of them
  // get into each other's way.
  constexpr int64_t kFewPlanes = 8;
  const bool adjoin = input_.channels_adjoin();
  const int64_t reach =
      input_.channel(g_.c_in) + g_.image.h * input_.h_step + g_.image.w * input_.w_step;
  if (!is_padded(g_) && (input_.block == 1 || g_.groups == 1) &&
      (channels_ <= kFewPlanes || adjoin) && reach < std::numeric_limits<int32_t>::max()) {
    return Way::in_place;
  }
  // Side by side, taps that follow each other share cache lines.
  return !adjoin && channels_ >= kTapChunk ? Way::interleave : Way::copy;
}

template <typename T>
int64_t ChannelsInput<T>::row_bytes() const {
  const int64_t value = sizeof(A);
  switch (way_) {
    case Way::in_place:
      return 0;
    case Way::interleave:
      return ceil_div(channels_, loops_.lanes) * loops_.lanes * columns_ * value;
    case Way::copy:
      return Strip::like(input_.channels_adjoin(), channels_, 1, columns_).size * value;
  }
  return 0;
}

template <typename T>
void ChannelsInput<T>::set_rows(int64_t rows) {
  rows_ = rows;
  switch (way_) {
    case Way::in_place:
      size_ = 0;
      steps_ = {nullptr, 0, input_.c_step, input_.h_step, input_.w_step, input_.block};
      break;
    case Way::interleave:
      size_ = rows * row_bytes() / static_cast<int64_t>(sizeof(A));
      steps_ = {nullptr,      0,           rows * columns_ * loops_.lanes, columns_ * loops_.lanes,
                loops_.lanes, loops_.lanes};
      break;
    case Way::copy:
      strip_ = Strip::like(input_.channels_adjoin(), channels_, rows, columns_);
      size_ = strip_.size;
      steps_ = strip_.steps;
      break;
  }
}

template <typename T>
std::vector<int32_t> ChannelsInput<T>::offsets() const {
  // Of each channel once: it takes a division.
  std::vector<int64_t> channel(channels_);
  for (int64_t c = 0; c < channels_; ++c) channel[c] = steps_.channel(c);
  std::vector<int32_t> offsets;
  offsets.reserve(channels_ * g_.kernel.h * g_.kernel.w);
  for_each_tap(channels_, g_.kernel, [&](int64_t c, int64_t i, int64_t j) {
    offsets.push_back(static_cast<int32_t>(channel[c] + i * g_.dilation.h * steps_.h_step +
                                           j * g_.dilation.w * steps_.w_step));
  });
  return offsets;
}

template <typename T>
const typename ChannelsInput<T>::A* ChannelsInput<T>::band(int64_t n,
                                                           int64_t group,
                                                           int64_t y,
                                                           A* memory) const {
  const int64_t c = group * channels_;
  if constexpr (std::is_same_v<T, A>) {
    if (way_ == Way::in_place) return input_.at(n, c, y, 0);
    if (way_ == Way::interleave) {
      loops_.interleave(band_of(input_, g_, n, c, channels_, y, {rows_, columns_}), memory);
      return memory;
    }
  }
  copy_strip(strip_, input_, g_.image, n, c, y - g_.padding.h, -g_.padding.w, memory);
  return memory;
}

template class ChannelsInput<float>;
template class ChannelsInput<double>;
template class ChannelsInput<BFloat16>;

}  // namespace convship::kernels::conv2d
