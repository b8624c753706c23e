#include "kernels/conv2d/words.h"

#include <cstring>

#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/words_input.h"

namespace convship::kernels::conv2d {
namespace {

constexpr int kLanes = 16;  // of every instruction set that has such loops

// Words of one output channel.
int64_t taps_of(const WeightShape& shape, int64_t in_word) {
  return ceil_div(shape.channels, in_word) * shape.kernel.h * shape.kernel.w;
}

}  // namespace

bool WordsPack::serves(const Geometry& g, int64_t block, Rounding::Kind kind) {
  const int64_t channels = g.c_in / g.groups;
  if (g.groups > 1 && (channels % block != 0 || channels < 4)) return false;
  constexpr int64_t kMostTaps = INT32_MAX / (255 * kMostLevel);
  return kind != Rounding::Kind::int8 ||
         (channels + kTapChunk) * g.kernel.h * g.kernel.w <= kMostTaps;
}

WordsPack::WordsPack(const WordLoops& loops,
                     const Rounding& rounding,
                     const WeightShape& shape,
                     const float* weight,
                     const float* bias)
    : loops_(loops), rounding_(rounding), packed_(shape, kLanes) {
  const int64_t taps = taps_of(shape, loops.channels_in_word);
  const int64_t padded = packed_.blocks.padded();
  packed_.loop = loops.channels;
  packed_.weight = make_weights<float>(shape.groups * padded * taps);
  packed_.bias = make_aligned<float>(shape.groups * padded);
  packed_.scale = make_aligned<float>(shape.groups * padded);
  std::memset(packed_.weight.get(), 0, static_cast<std::size_t>(shape.groups * padded * taps) * 4);
  for (int64_t group = 0; group < shape.groups; ++group) pack_group(shape, group, weight, bias);
}

void WordsPack::pack_group(const WeightShape& shape,
                           int64_t group,
                           const float* weight,
                           const float* bias) {
  const ChannelBlocks& blocks = packed_.blocks;
  const int64_t kernel = shape.kernel.h * shape.kernel.w;
  const int64_t count = shape.channels * kernel;
  const int64_t in_word = loops_.channels_in_word;
  const bool integers = rounding_.kind == Rounding::Kind::int8;
  const int64_t taps = taps_of(shape, in_word);
  std::fill_n(packed_.bias.get() + group * blocks.padded(), blocks.padded(), 0.0f);
  std::fill_n(packed_.scale.get() + group * blocks.padded(), blocks.padded(), 0.0f);
  for (int64_t number = 0; number < blocks.count(); ++number) {
    const ChannelBlocks::Block b = blocks[number];
    const int64_t width = b.vectors * kLanes;
    const int64_t place = group * blocks.padded() + b.first;
    auto* words = reinterpret_cast<unsigned char*>(packed_.weight.get() + place * taps);
    for (int64_t k = 0; k < b.exist; ++k) {
      const int64_t o = group * blocks.out() + b.first + k;
      const float* from = weight + o * count;
      const float step = integers ? weight_step(from, count) : 0;
      int64_t tap = 0, sum = 0;
      for_each_word(shape.channels, in_word, shape.kernel,
                    [&](int64_t, int64_t c, int64_t i, int64_t j) {
                      unsigned char* word = words + 4 * (tap++ * width + k);
                      for (int64_t l = 0; l < std::min(in_word, shape.channels - c); ++l) {
                        const float value = from[(c + l) * kernel + i * shape.kernel.w + j];
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
      const float scale = rounding_.scale * step;
      packed_.scale[place + k] = scale;
      // The sum of (level - zero point) * weight, from that of level * weight.
      packed_.bias[place + k] =
          static_cast<float>((bias ? bias[o] : 0.0) - static_cast<double>(scale) *
                                                          static_cast<double>(sum) *
                                                          rounding_.zero_point) +
          0.0f;
    }
  }
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
