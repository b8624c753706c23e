// Words of input channels in tiles of pixels, of weights in tiles of output channels: packs
// rounded weights for the loops of isa/tiles-inl.h. T is float or BFloat16.
#pragma once

#include "kernels/conv2d/channels.h"
#include "kernels/conv2d/rounding.h"
#include "kernels/conv2d/word_order.h"

namespace convship::kernels::conv2d {

// Words that a tile multiplies at once: of a pixel, and where those are few, of its neighbours
// under a kernel row, too.
constexpr int64_t kTileWords = 16;

// Chunks are as large as tiles allow, and where one is enough, filled up with zeros so that a
// kernel row takes the fewest tiles.
WordOrder order_of_tiles(const WeightShape& shape, int64_t in_word);

// Words that a tile takes, of `chunk` words a pixel: as many as divide a kernel row.
int64_t run_words(int64_t chunk, Pair kernel, Pair dilation);

template <typename T>
class TilesPack final : public Pack<T> {
 public:
  TilesPack(const TileLoops& loops,
            const Loops<float>& floats,
            const Rounding& rounding,
            const WeightShape& shape,
            const T* weight,
            const T* bias);

  std::vector<int64_t> run(const Call<T>& call, const Parallel& parallel) const override;

 private:
  const TileLoops& loops_;
  Rounding rounding_;
  WordOrder order_;
  PackedChannels<float> packed_;
};

}  // namespace convship::kernels::conv2d
