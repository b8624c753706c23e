#include "kernels/conv2d/words.h"

#include <cstring>
#include <type_traits>

#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/words_input.h"

namespace convship::kernels::conv2d {
bool WordsPack::serves(const Geometry& g, int64_t block, Rounding::Kind kind) {
  const int64_t channels = g.c_in / g.groups;
  if (g.groups > 1 && (channels % block != 0 || channels < 4)) return false;
  constexpr int64_t kMostTaps = INT32_MAX / (255 * kMostLevel);
  return kind != Rounding::Kind::int8 ||
         (channels + kTapChunk) * g.kernel.h * g.kernel.w <= kMostTaps;
}

template <typename T>
void pack_words(const WeightShape& shape,
                const WordOrder& order,
                const Rounding& rounding,
                const T* weight,
                const T* bias,
                PackedChannels<float>& packed) {
  const ChannelBlocks& blocks = packed.blocks;
  const int64_t kernel = shape.kernel.h * shape.kernel.w;
  const int64_t count = shape.channels * kernel, taps = order.count(shape.kernel);
  const int64_t padded = blocks.padded();
  const bool integers = rounding.kind == Rounding::Kind::int8;
  packed.weight = make_weights<float>(shape.groups * padded * taps);
  packed.bias = make_aligned<float>(shape.groups * padded);
  packed.scale = make_aligned<float>(shape.groups * padded);
  std::memset(packed.weight.get(), 0, static_cast<std::size_t>(shape.groups * padded * taps) * 4);
  std::fill_n(packed.bias.get(), shape.groups * padded, 0.0f);
  std::fill_n(packed.scale.get(), shape.groups * padded, 0.0f);
  const auto pack = [&](int64_t group, const ChannelBlocks::Block& b, int64_t k) {
    const int64_t place = group * padded + b.first, width = b.vectors * kWordLanes;
    const int64_t o = group * blocks.out() + b.first + k;
    auto* words = reinterpret_cast<unsigned char*>(packed.weight.get() + place * taps);
    const T* from = weight + o * count;
    float step = 0;
    if constexpr (std::is_same_v<T, float>) step = integers ? weight_step(from, count) : 0;
    int64_t tap = 0, sum = 0;
    order.for_each(shape.kernel, [&](int64_t c, int64_t i, int64_t j) {
      unsigned char* word = words + 4 * (tap++ * width + k);
      for (int64_t l = 0; l < std::min(order.in_word, shape.channels - c); ++l) {
        const float value = Accumulator<T>::widen(from[(c + l) * kernel + i * shape.kernel.w + j]);
        if (integers) {
          const int8_t level = weight_level(value, step);
          std::memcpy(word + l, &level, 1);
          sum += level;
        } else {
          const BFloat16 rounded = to_bfloat16(value);
          std::memcpy(word + 2 * l, &rounded, 2);
        }
      }
    });
    const float scale = rounding.scale * step;
    packed.scale[place + k] = scale;
    // The sum of (level - zero point) * weight, from that of level * weight.
    packed.bias[place + k] =
        static_cast<float>((bias ? Accumulator<T>::widen(bias[o]) : 0.0f) -
                           static_cast<double>(scale) * static_cast<double>(sum) *
                               rounding.zero_point) +
        0.0f;
  };
  for (int64_t group = 0; group < shape.groups; ++group) {
    for (int64_t number = 0; number < blocks.count(); ++number) {
      const ChannelBlocks::Block b = blocks[number];
      for (int64_t k = 0; k < b.exist; ++k) pack(group, b, k);
    }
  }
}

template void pack_words(const WeightShape&,
                         const WordOrder&,
                         const Rounding&,
                         const float*,
                         const float*,
                         PackedChannels<float>&);
template void pack_words(const WeightShape&,
                         const WordOrder&,
                         const Rounding&,
                         const BFloat16*,
                         const BFloat16*,
                         PackedChannels<float>&);

WordsPack::WordsPack(const WordLoops& loops,
                     const Rounding& rounding,
                     const WeightShape& shape,
                     const float* weight,
                     const float* bias)
    : loops_(loops), rounding_(rounding), packed_(ChannelBlocks(shape, kWordLanes)) {
  packed_.loop = loops.channels;
  pack_words(shape, order_of_words(shape, loops.channels_in_word), rounding, weight, bias, packed_);
}

std::vector<int64_t> WordsPack::run(const Call<float>& call, const Parallel& parallel) const {
  WordsInput input(loops_, call.geometry, call.input, rounding_);
  run_channels<float>(packed_, input, call, parallel);
  return {};
}

Scratch<float> rounded_planes(const View<const float>& input,
                              const Geometry& g,
                              const Rounding& rounding,
                              const Parallel& parallel) {
  const int64_t plane = g.image.h * g.image.w;
  auto memory = make_scratch<float>(g.n * g.c_in * plane);
  const View<float> to = nchw(memory.get(), g.c_in, g.image);
  parallel.run(g.n * g.c_in, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / g.c_in, c = i % g.c_in;
      for (int64_t y = 0; y < g.image.h; ++y) {
        for (int64_t x = 0; x < g.image.w; ++x)
          *to.at(n, c, y, x) = rounding(*input.at(n, c, y, x));
      }
    }
  });
  return memory;
}

}  // namespace convship::kernels::conv2d
