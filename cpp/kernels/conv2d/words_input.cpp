#include "kernels/conv2d/words_input.h"

#include "kernels/conv2d/band.h"
#include "kernels/conv2d/word_order.h"

namespace convship::kernels::conv2d {

WordsInput::WordsInput(const WordLoops& loops,
                       const Geometry& geometry,
                       const View<const float>& input,
                       const Rounding& rounding)
    : loops_(loops),
      g_(geometry),
      input_(input),
      rounding_(rounding),
      channels_(g_.c_in / g_.groups),
      words_(ceil_div(channels_, loops.channels_in_word)),
      columns_(columns_under(g_)) {
  // Whole chunks of 16 channels are copied where channels adjoin.
  if (input_.channels_adjoin()) {
    words_ = ceil_div(channels_, kTapChunk) * kTapChunk / loops.channels_in_word;
  }
}

int64_t WordsInput::row_bytes() const {
  return words_ * columns_ * static_cast<int64_t>(sizeof(float));
}

int64_t WordsInput::size() const { return rows_ * columns_ * words_; }

void WordsInput::set_rows(int64_t rows) {
  rows_ = rows;
  const int64_t plane = rows * columns_;
  if (input_.channels_adjoin()) {
    const int64_t pixel = kTapChunk / loops_.channels_in_word;
    steps_ = {nullptr, 0, plane * pixel, columns_ * pixel, pixel, pixel};
  } else {
    steps_ = {nullptr, 0, plane, columns_, 1};
  }
}

std::vector<int32_t> WordsInput::offsets() const {
  std::vector<int32_t> offsets;
  const int64_t in_word = loops_.channels_in_word;
  const WordOrder order = order_of_words({0, channels_, g_.kernel, g_.groups}, in_word);
  order.for_each(g_.kernel, [&](int64_t c, int64_t i, int64_t j) {
    offsets.push_back(static_cast<int32_t>(steps_.channel(c / in_word) +
                                           i * g_.dilation.h * steps_.h_step +
                                           j * g_.dilation.w * steps_.w_step));
  });
  return offsets;
}

const float* WordsInput::band(int64_t n, int64_t group, int64_t y, float* memory) const {
  const auto band = band_of(input_, g_, n, group * channels_, channels_, y, {rows_, columns_});
  loops_.copy({band, levels_of(rounding_)}, memory);
  return memory;
}

}  // namespace convship::kernels::conv2d
