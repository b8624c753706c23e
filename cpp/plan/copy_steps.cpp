// Steps that move values from one layout to another.
#include <algorithm>
#include <cstring>

#include "plan/steps.h"

namespace convship::plan {
namespace {

using kernels::conv2d::kChannelBlock;
using kernels::conv2d::View;

// Images are copied by different threads; one is too little work to share.
template <typename Visit>
void for_images(const Frame& frame, int64_t images, const Visit& visit) {
  frame.parallel.run(images, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) visit(n);
  });
}

int64_t exist(const Size& size, int64_t block) {
  return std::min(kChannelBlock, size.c - block * kChannelBlock);
}

// A channel of one of several operands.
struct Channel {
  int operand;
  int64_t channel;
};

// `count` channels of y, of one block, from c on. Together, so that every line of
// y is written once.
void copy_into_block(const Frame& frame,
                     const std::vector<Operand>& from,
                     const Channel* channels,
                     int64_t count,
                     const Operand& y,
                     int64_t n,
                     int64_t c) {
  const float* sources[kChannelBlock];
  for (int64_t k = 0; k < count; ++k) {
    sources[k] = from[channels[k].operand].channel(frame, n, channels[k].channel);
  }
  float* target = y.channel(frame, n, c);
  for (int64_t i = 0; i < y.block_step(); i += kChannelBlock) {
    for (int64_t k = 0; k < count; ++k) target[i + k] = sources[k][i];
  }
}

// Fills y's channels from `first` on.
Step copy_channels(std::string name,
                   std::vector<Operand> from,
                   std::vector<Channel> channels,
                   const Operand& y,
                   int64_t first) {
  const auto copy = [from = std::move(from), channels = std::move(channels), y,
                     first](const Frame& frame) {
    const int64_t end = first + static_cast<int64_t>(channels.size());
    const int64_t first_block = first / kChannelBlock;
    const int64_t blocks = (end + kChannelBlock - 1) / kChannelBlock - first_block;
    frame.parallel.run(y.size.n * blocks, grain(y.block_step()), [&](int64_t begin, int64_t stop) {
      for (int64_t i = begin; i < stop; ++i) {
        const int64_t block = first_block + i % blocks;
        const int64_t c = std::max(first, block * kChannelBlock);
        const int64_t count = std::min(end, (block + 1) * kChannelBlock) - c;
        copy_into_block(frame, from, &channels[c - first], count, y, i / blocks, c);
      }
    });
  };
  return {std::move(name), copy};
}

}  // namespace

Step flatten_step(const Operand& x, const Operand& y) {
  return {"flatten, " + describe(x.size), [x, y](const Frame& frame) {
            for_images(frame, x.size.n, [&](int64_t n) {
              const int64_t pixels = x.size.pixels();
              float* to = y.data(frame) + n * y.place.n_step;
              for (int64_t block = 0; block < x.blocks(); ++block) {
                const float* from = x.block(frame, n, block);
                frame.isa.single.transpose(from, kChannelBlock, pixels, exist(x.size, block),
                                           to + block * kChannelBlock * pixels, pixels);
              }
            });
          }};
}

Step unflatten_step(const Operand& x, const Operand& y) {
  return {"unflatten, " + describe(y.size), [x, y](const Frame& frame) {
            for_images(frame, x.size.n, [&](int64_t n) {
              const int64_t pixels = y.size.pixels();
              const float* from = x.data(frame) + n * x.place.n_step;
              for (int64_t block = 0; block < y.blocks(); ++block) {
                float* const to = y.block(frame, n, block);
                const int64_t count = exist(y.size, block);
                if (count < kChannelBlock) std::fill_n(to, y.block_step(), 0.0f);
                frame.isa.single.transpose(from + block * kChannelBlock * pixels, pixels, count,
                                           pixels, to, kChannelBlock);
              }
            });
          }};
}

Step place_channels_step(const Operand& x, const Operand& y, int64_t channel) {
  std::vector<Channel> channels(x.size.c);
  for (int64_t c = 0; c < x.size.c; ++c) channels[c] = {0, c};
  return copy_channels("concatenate, " + describe(x.size), {x}, std::move(channels), y, channel);
}

Step concatenate_pixels_step(const ConcatenatePixels& layer,
                             const std::vector<Operand>& from,
                             const Operand& y) {
  const auto copy = [rows = layer.rows, from, y](const Frame& frame) {
    const int64_t blocks = y.blocks(), width = y.size.image.w * kChannelBlock;
    frame.parallel.run(y.size.n * blocks, grain(y.block_step()), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / blocks, block = i % blocks;
        float* to = y.block(frame, n, block);
        for (const Operand& x : from) {
          const float* const image = x.block(frame, n, block);
          const int64_t row = x.size.image.w * kChannelBlock;
          if (rows) {
            to = std::copy_n(image, x.block_step(), to);
            continue;
          }
          for (int64_t h = 0; h < y.size.image.h; ++h) {
            std::copy_n(image + h * row, row, to + h * width);
          }
          to += row;
        }
      }
    });
  };
  return {"concatenate pixels, " + describe(y.size), copy};
}

// A block of 16 places of the side becomes a block of channels.
Step exchange_step(const ExchangeChannels& layer, const Operand& x, const Operand& y) {
  const Pair image = x.size.image;
  // The side's places lie so many pixels apart, and so do the channels that come in their place;
  // along the other side one pixel follows the other, or one row.
  const int64_t step = layer.rows ? image.w : 1;
  const int64_t lines = layer.rows ? image.w : image.h;
  const int64_t x_line = layer.rows ? 1 : image.w, y_line = layer.rows ? 1 : y.size.image.w;
  const auto copy = [=](const Frame& frame) {
    const int64_t blocks = y.blocks();
    frame.parallel.run(y.size.n * blocks, grain(y.block_step()), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / blocks, number = i % blocks, count = exist(y.size, number);
        float* const to = y.block(frame, n, number);
        if (count < kChannelBlock) std::fill_n(to, y.block_step(), 0.0f);
        for (int64_t block = 0; block < x.blocks(); ++block) {
          const float* const from = x.block(frame, n, block);
          for (int64_t line = 0; line < lines; ++line) {
            const int64_t there = number * kChannelBlock * step + line * x_line;
            const int64_t here = block * kChannelBlock * step + line * y_line;
            frame.isa.single.transpose(from + there * kChannelBlock, step * kChannelBlock, count,
                                       exist(x.size, block), to + here * kChannelBlock,
                                       step * kChannelBlock);
          }
        }
      }
    });
  };
  return {"exchange channels, " + describe(y.size), copy};
}

Step select_step(const Select& layer, const std::vector<Operand>& from, const Operand& y) {
  std::vector<Channel> all, channels;
  for (std::size_t i = 0; i < from.size(); ++i) {
    for (int64_t c = 0; c < from[i].size.c; ++c) all.push_back({static_cast<int>(i), c});
  }
  for (const int64_t c : *layer.from) channels.push_back(all[c]);
  return copy_channels("select channels, " + describe(y.size), from, std::move(channels), y, 0);
}

Step add_pixels_step(const AddPixels& layer, const Operand& x, const Operand& y) {
  // As pixels lie in memory, [blocks][count][16].
  const int64_t added = layer.count * kChannelBlock;
  std::vector<float> blocked(static_cast<std::size_t>(y.blocks() * added));
  for (int64_t c = 0; c < y.size.c; ++c) {
    float* const to = blocked.data() + c / kChannelBlock * added + c % kChannelBlock;
    for (int64_t i = 0; i < layer.count; ++i) {
      to[i * kChannelBlock] = (*layer.values)[i * y.size.c + c];
    }
  }
  const auto copy = [blocked = std::move(blocked), added, behind = layer.behind, x,
                     y](const Frame& frame) {
    const int64_t blocks = y.blocks();
    frame.parallel.run(y.size.n * blocks, grain(y.block_step()), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / blocks, block = i % blocks;
        float* const to = y.block(frame, n, block);
        std::copy_n(x.block(frame, n, block), x.block_step(), to + (behind ? 0 : added));
        std::copy_n(blocked.data() + block * added, added, to + (behind ? x.block_step() : 0));
      }
    });
  };
  return {"add pixels, " + describe(y.size), copy};
}

Step import_step(const Operand& from, const Operand& to) {
  return {"input, " + describe(to.size), [from, to](const Frame& frame) {
            for_images(frame, to.size.n, [&](int64_t n) {
              const View<const float> x = from.const_view(frame);
              const View<float> y = to.view(frame);
              const Pair image = to.size.image;
              for (int64_t block = 0; block < to.blocks(); ++block) {
                const int64_t c = block * kChannelBlock, count = exist(to.size, block);
                for (int64_t row = 0; row < image.h; ++row) {
                  float* target = y.at(n, c, row, 0);
                  if (count < kChannelBlock) std::fill_n(target, image.w * kChannelBlock, 0.0f);
                  if (x.w_step == 1) {
                    frame.isa.single.transpose(x.at(n, c, row, 0), x.c_step, count, image.w, target,
                                               kChannelBlock);
                    continue;
                  }
                  for (int64_t w = 0; w < image.w; ++w) {
                    for (int64_t k = 0; k < count; ++k) {
                      target[w * kChannelBlock + k] = *x.at(n, c + k, row, w);
                    }
                  }
                }
              }
            });
          }};
}

Step export_step(const Operand& from, const Operand& to) {
  return {"output, " + describe(from.size), [from, to](const Frame& frame) {
            for_images(frame, from.size.n, [&](int64_t n) {
              const View<float> y = to.view(frame);
              const int64_t pixels = from.size.pixels();
              for (int64_t block = 0; block < from.blocks(); ++block) {
                const float* source = from.block(frame, n, block);
                float* target = y.at(n, block * kChannelBlock, 0, 0);
                const int64_t count = exist(from.size, block);
                if (pixels == 1) {
                  std::memcpy(target, source, count * sizeof(float));
                } else {
                  frame.isa.single.transpose(source, kChannelBlock, pixels, count, target, pixels);
                }
              }
            });
          }};
}

}  // namespace convship::plan
