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

}  // namespace

Step flatten_step(const Operand& x, const Operand& y) {
  return {"flatten, " + describe(x.size), [x, y](const Frame& frame) {
            for_images(frame, x.size.n, [&](int64_t n) {
              const int64_t pixels = x.size.pixels();
              float* to = y.data(frame) + n * y.place.n_step;
              for (int64_t block = 0; block < x.blocks(); ++block) {
                const float* from = x.data(frame) + n * x.place.n_step + block * x.block_step();
                frame.isa.single.transpose(from, kChannelBlock, pixels, exist(x.size, block),
                                           to + block * kChannelBlock * pixels, pixels);
              }
            });
          }};
}

Step copy_channels_step(const Operand& x, const Operand& y, int64_t channel) {
  return {"copy, " + describe(x.size), [x, y, channel](const Frame& frame) {
            for_images(frame, x.size.n, [&](int64_t n) {
              const auto from = x.const_view(frame);
              const auto to = y.view(frame);
              const int64_t pixels = x.size.pixels();
              for (int64_t c = 0; c < x.size.c; ++c) {
                const float* source = from.at(n, c, 0, 0);
                float* target = to.at(n, channel + c, 0, 0);
                for (int64_t i = 0; i < pixels; ++i) {
                  target[i * kChannelBlock] = source[i * kChannelBlock];
                }
              }
            });
          }};
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
                const float* source =
                    from.data(frame) + n * from.place.n_step + block * from.block_step();
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
