// Of a strided convolution whose taps all meet the same few rows and columns (a kernel of
// one tap, or a dilation and a stride with a common divisor), the others are left out: it
// is one of a smaller stride and dilation over a sample of the image.
#pragma once

#include <numeric>

#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/view.h"

namespace convship::kernels::conv2d {

struct Sample {
  Geometry geometry;
  Pair first;  // row and column of the image
  Pair every;
};

inline Sample sample(const Geometry& g) {
  struct Side {
    int64_t image, stride, padding, dilation, first, every;
  };
  const auto side = [](int64_t image, int64_t kernel, int64_t stride, int64_t padding,
                       int64_t dilation, int64_t conv) {
    // What steps nowhere takes any step.
    const int64_t every =
        std::gcd(conv > 1 ? stride : int64_t{0}, kernel > 1 ? dilation : int64_t{0});
    // Row i * stride + k * dilation of the padded image, a multiple of `every`, is row
    // i * stride / every + k * dilation / every - zeros of the sample.
    if (every <= 1) return Side{image, stride, padding, dilation, 0, 1};
    const int64_t zeros = ceil_div(padding, every), first = zeros * every - padding;
    if (first >= image) return Side{image, stride, padding, dilation, 0, 1};
    return Side{ceil_div(image - first, every),
                conv > 1 ? stride / every : 1,
                zeros,
                kernel > 1 ? dilation / every : 1,
                first,
                every};
  };
  const Side h = side(g.image.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h, g.conv.h);
  const Side w = side(g.image.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w, g.conv.w);
  Sample s{g, {h.first, w.first}, {h.every, w.every}};
  s.geometry.image = {h.image, w.image};
  s.geometry.stride = {h.stride, w.stride};
  s.geometry.padding = {h.padding, w.padding};
  s.geometry.dilation = {h.dilation, w.dilation};
  return s;
}

// The sample's values in an image.
template <typename T>
View<T> sampled(const View<T>& image, const Sample& s) {
  View<T> view = image;
  view.data += s.first.h * image.h_step + s.first.w * image.w_step;
  view.h_step *= s.every.h;
  view.w_step *= s.every.w;
  return view;
}

}  // namespace convship::kernels::conv2d
