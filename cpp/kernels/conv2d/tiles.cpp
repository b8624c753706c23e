#include "kernels/conv2d/tiles.h"

#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/tiles_input.h"
#include "kernels/conv2d/words.h"

namespace convship::kernels::conv2d {
namespace {

int64_t largest_divisor(int64_t words) {
  int64_t divisor = std::min(words, kTileWords);
  while (words % divisor != 0) --divisor;
  return divisor;
}

}  // namespace

int64_t run_words(int64_t chunk, Pair kernel, Pair dilation) {
  return largest_divisor(dilation.w == 1 ? kernel.w * chunk : chunk);
}

WordOrder order_of_tiles(const WeightShape& shape, int64_t in_word) {
  const int64_t all = ceil_div(shape.channels, in_word);
  const int64_t chunks = ceil_div(all, kTileWords);
  int64_t words = 0;
  if (chunks > 1) {
    // Whole blocks of the blocked layout.
    const int64_t block = kChannelBlock / in_word;
    words = ceil_div(ceil_div(all, chunks), block) * block;
  } else {
    // Each call asks; so the search ends where no larger chunk can take fewer.
    int64_t fewest = INT64_MAX;
    for (int64_t w = all; w <= kTileWords; ++w) {
      if (ceil_div(shape.kernel.w * w, kTileWords) >= fewest) break;
      const int64_t runs = shape.kernel.w * w / largest_divisor(shape.kernel.w * w);
      if (runs < fewest) {
        fewest = runs;
        words = w;
      }
    }
  }
  return {in_word, words * in_word, ceil_div(all, words) * words * in_word};
}

template <typename T>
TilesPack<T>::TilesPack(const TileLoops& loops,
                        const Loops<float>& floats,
                        const Rounding& rounding,
                        const WeightShape& shape,
                        const T* weight,
                        const T* bias)
    : loops_(loops),
      rounding_(rounding),
      order_(order_of_tiles(shape, loops.channels_in_word)),
      packed_(ChannelBlocks(shape, kWordLanes, /*joins_odd=*/false)) {
  packed_.loop = loops.channels;
  packed_.narrow = floats.narrow;
  pack_words(shape, order_, rounding, weight, bias, packed_);
}

template <typename T>
std::vector<int64_t> TilesPack<T>::run(const Call<T>& call, const Parallel& parallel) const {
  TilesInput<T> input(loops_, order_, call.geometry, call.input, rounding_);
  run_channels<T>(packed_, input, call, parallel);
  return {};
}

template class TilesPack<float>;
template class TilesPack<BFloat16>;

}  // namespace convship::kernels::conv2d
