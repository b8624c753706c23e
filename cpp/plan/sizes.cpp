#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "plan/network.h"

namespace convship::plan {
namespace {

[[noreturn]] void refuse(const Layer& layer, const std::string& why) {
  throw std::invalid_argument(std::string(layer_name(layer)) + ": " + why);
}

int64_t pooled(int64_t size, int64_t window, int64_t stride, int64_t padding, bool ceil_mode) {
  const int64_t room = size + 2 * padding - window;
  if (room < 0 || stride < 1 || 2 * padding > window) return 0;
  int64_t count = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  // As in torch, the last window starts inside of the image or its left padding.
  if (ceil_mode && (count - 1) * stride >= size + padding) --count;
  return count;
}

Pair pooled(Pair size, const Windows& w) {
  return {pooled(size.h, w.size.h, w.stride.h, w.padding.h, w.ceil_mode),
          pooled(size.w, w.size.w, w.stride.w, w.padding.w, w.ceil_mode)};
}

// A graph can ask for any size; no product of them may overflow.
constexpr int64_t kMostSide = int64_t{1} << 24;

Size with_image(const Layer& layer, Size x, Pair image) {
  if (x.matrix) refuse(layer, "needs images, got a matrix");
  if (image.h < 1 || image.w < 1) refuse(layer, "the image is smaller than the window");
  constexpr double kMost = 0x1p40;
  if (image.h > kMostSide || image.w > kMostSide ||
      static_cast<double>(x.n) * static_cast<double>(x.c) * static_cast<double>(image.h * image.w) >
          kMost) {
    refuse(layer, "too large");
  }
  x.image = image;
  return x;
}

class Infer {
 public:
  // sizes: of all values that the layer may look at.
  Infer(const Layer& layer, const std::vector<Size>& inputs, const std::vector<Size>& sizes)
      : layer_(layer), in_(inputs), sizes_(sizes) {}

  Size operator()(const Convolve& conv) const {
    if (in_[0].c != conv.shape.channels * conv.shape.groups) refuse(layer_, "wrong channels");
    Size y = with_image(layer_, in_[0], convolved(conv, in_[0].image));
    y.c = conv.shape.c_out;
    if (conv.pooled) y = with_image(layer_, y, pooled(y.image, conv.pool));
    return with_residual(y);
  }
  Size operator()(const TransposedConvolve& conv) const {
    if (in_[0].c != conv.c_in) refuse(layer_, "wrong channels");
    const auto side = [](int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                         int64_t more) {
      return (size - 1) * stride - 2 * padding + kernel + more;
    };
    Size y = with_image(
        layer_, in_[0],
        {side(in_[0].image.h, conv.kernel.h, conv.stride.h, conv.padding.h, conv.output_padding.h),
         side(in_[0].image.w, conv.kernel.w, conv.stride.w, conv.padding.w,
              conv.output_padding.w)});
    y.c = conv.c_out;
    return y;
  }
  Size operator()(const Linear& linear) const {
    if (!in_[0].matrix || in_[0].c != linear.in) refuse(layer_, "wrong features");
    Size y = in_[0];
    y.c = linear.out;
    return y;
  }
  Size operator()(const MaxPool& pool) const {
    return with_image(layer_, in_[0], pooled(in_[0].image, pool.windows));
  }
  Size operator()(const AveragePool& pool) const {
    return with_image(layer_, in_[0], pooled(in_[0].image, pool.windows));
  }
  Size operator()(const AdaptivePool& pool) const {
    return with_image(layer_, in_[0], {pool.height(sizes_), pool.width(sizes_)});
  }
  Size operator()(const AcrossChannels&) const {
    Size y = in_[0];
    y.c = 1;
    return y;
  }
  Size operator()(const Activate&) const { return in_[0]; }
  Size operator()(const Round&) const { return in_[0]; }
  Size operator()(const Add& add) const { return broadcast(add.into_first); }
  Size operator()(const Combine& combine) const { return broadcast(combine.into_first); }
  Size operator()(const CombineNumbers& combine) const { return by_channel(*combine.numbers); }
  Size operator()(const Affine& affine) const { return with_residual(by_channel(*affine.scale)); }
  Size operator()(const Normalize& norm) const { return by_channel(*norm.scale); }
  Size operator()(const Slope& slope) const { return by_channel(*slope.slope); }
  Size operator()(const GroupNorm& norm) const {
    const Size y = with_residual(by_channel(*norm.scale));
    return with_image(layer_, y, y.image);
  }
  Size operator()(const Upsample& upsample) const {
    return with_image(layer_, in_[0], {upsample.height(sizes_), upsample.width(sizes_)});
  }
  Size operator()(const Pad& pad) const {
    const auto side = [&](int64_t size, const Measure& before, const Measure& after) {
      const int64_t first = before(sizes_), last = after(sizes_);
      const bool circular = pad.kind == Pad::Kind::circular;
      const int64_t most = pad.kind == Pad::Kind::reflect ? size - 1 : circular ? size : kMostSide;
      if (first > most || last > most) refuse(layer_, "too wide for the image");
      if (first <= -size || last <= -size) refuse(layer_, "cuts off all of the image");
      if (circular && (first < 0 || last < 0)) refuse(layer_, "around what is cut off");
      return size + first + last;
    };
    return with_image(
        layer_, in_[0],
        {side(in_[0].image.h, pad.top, pad.bottom), side(in_[0].image.w, pad.left, pad.right)});
  }
  Size operator()(const PixelShuffle& shuffle) const {
    const int64_t factor = shuffle.factor;
    if (in_[0].c % (factor * factor) != 0) refuse(layer_, "wrong channels");
    Size y = with_image(layer_, in_[0], {in_[0].image.h * factor, in_[0].image.w * factor});
    y.c /= factor * factor;
    return y;
  }
  Size operator()(const PixelUnshuffle& shuffle) const {
    const int64_t factor = shuffle.factor;
    const auto [h, w] = in_[0].image;
    if (h % factor != 0 || w % factor != 0) refuse(layer_, "sides that the factor does not divide");
    Size y = with_image(layer_, in_[0], {h / factor, w / factor});
    y.c *= factor * factor;
    return y;
  }
  Size operator()(const Softmax&) const { return in_[0]; }
  Size operator()(const Concatenate&) const { return joined(); }
  Size operator()(const ConcatenatePixels& concatenate) const {
    const auto side = [&](Size& size) -> int64_t& {
      return concatenate.rows ? size.image.h : size.image.w;
    };
    Size y = in_[0];
    int64_t all = 0;
    for (Size x : in_) {
      all += side(x);
      side(x) = side(y);
      if (!(x == y)) refuse(layer_, "inputs differ in size");
    }
    side(y) = all;
    return with_image(layer_, y, y.image);
  }
  Size operator()(const ExchangeChannels& exchange) const {
    Size y = in_[0];
    std::swap(y.c, exchange.rows ? y.image.h : y.image.w);
    return with_image(layer_, y, y.image);
  }
  Size operator()(const Select& select) const {
    Size y = joined();
    for (const int64_t channel : *select.from) {
      if (channel >= y.c) refuse(layer_, "too few channels");
    }
    y.c = static_cast<int64_t>(select.from->size());
    return y;
  }
  Size operator()(const Unflatten& unflatten) const {
    const Pair image = unflatten.image;
    Size y = in_[0];
    if (!y.matrix) refuse(layer_, "needs a matrix, got images");
    if (image.h < 1 || image.w < 1 || image.h > y.c || image.w > y.c / image.h ||
        y.c % (image.h * image.w) != 0) {
      refuse(layer_, "wrong features");
    }
    y.matrix = false;
    y.c /= image.h * image.w;
    return with_image(layer_, y, image);
  }
  Size operator()(const Flatten& flatten) const {
    Size y{in_[0].n, in_[0].c * in_[0].pixels(), {1, 1}, true};
    if (flatten.features >= 0 && flatten.features != y.c) refuse(layer_, "wrong features");
    return y;
  }
  Size operator()(const Attend& attend) const {
    const Size &q = in_[0], &k = in_[1], &v = in_[2];
    if (q.matrix || k.matrix || v.matrix) refuse(layer_, "needs images, got a matrix");
    if (q.c != k.c) refuse(layer_, "queries and keys differ in channels");
    if (attend.heads < 1 || q.c % attend.heads != 0 || v.c % attend.heads != 0) {
      refuse(layer_, "channels that are no whole number for each head");
    }
    if (q.n != k.n || k.n != v.n) refuse(layer_, "operands differ in number of images");
    if (k.image.h != v.image.h || k.image.w != v.image.w) {
      refuse(layer_, "keys and values differ in size");
    }
    const Pair window = attend.window;
    const bool whole = window.h == 0 && window.w == 0;
    if (!whole && (q.image.h != k.image.h || q.image.w != k.image.w)) {
      refuse(layer_, "windows of queries and keys that differ in size");
    }
    const Pair side = window_of(attend, q.image);
    if (side.h < 1 || side.w < 1) refuse(layer_, "windows that do not divide the image");
    const int64_t count = q.pixels() / (side.h * side.w);
    if (attend.bias) check_bias(attend, count, q.pixels() / count, k.pixels() / count);
    Size y = q;
    y.c = v.c;
    return with_image(layer_, y, y.image);
  }
  Size operator()(const AddPixels& add) const {
    if (in_[0].image.h != 1) refuse(layer_, "needs images of one row");
    if (add.count < 1 || add.count > kMostSide ||
        static_cast<int64_t>(add.values->size()) != add.count * in_[0].c) {
      refuse(layer_, "wrong channels");
    }
    return with_image(layer_, in_[0], {1, add.count + in_[0].image.w});
  }
  Size operator()(const CombineImage& combine) const {
    const Size& x = in_[0];
    const bool same = x.image.h == combine.image.h && x.image.w == combine.image.w;
    if (!same || static_cast<int64_t>(combine.values->size()) != x.c * x.pixels()) {
      refuse(layer_, "operands differ in size");
    }
    return with_image(layer_, x, x.image);
  }
  Size operator()(const ReshapePixels& reshape) const {
    const Size y = with_image(layer_, in_[0], {reshape.height(sizes_), reshape.width(sizes_)});
    if (y.pixels() != in_[0].pixels()) refuse(layer_, "not as many pixels as before");
    return y;
  }

 private:
  void check_bias(const Attend& attend, int64_t windows, int64_t queries, int64_t keys) const {
    const ScoreBias& bias = *attend.bias;
    const bool fits = (bias.windows == 1 || bias.windows == windows) &&
                      (bias.heads == 1 || bias.heads == attend.heads);
    // One after the other: no product of sizes may overflow.
    auto left = static_cast<int64_t>(bias.values.size());
    for (const int64_t extent : {bias.windows, bias.heads, queries, keys}) {
      if (!fits || left % extent != 0) refuse(layer_, "a bias of another size");
      left /= extent;
    }
    if (left != 1) refuse(layer_, "a bias of another size");
  }
  // Of two operands, each of which may have one channel, row or column where the other has
  // many.
  Size broadcast(bool into_first) const {
    const Size &a = in_[0], &b = in_[1];
    Size y = a;
    y.c = std::max(a.c, b.c);
    y.image = {std::max(a.image.h, b.image.h), std::max(a.image.w, b.image.w)};
    for (const Size& x : in_) {
      Size same = y;
      if (x.c == 1) same.c = 1;
      if (x.image.h == 1) same.image.h = 1;
      if (x.image.w == 1) same.image.w = 1;
      if (!(x == same)) refuse(layer_, "operands differ in size");
    }
    if (into_first && !(y == a)) refuse(layer_, "the result is larger than its place");
    return y.matrix ? y : with_image(layer_, y, y.image);
  }
  Size by_channel(const std::vector<float>& numbers) const {
    if (static_cast<int64_t>(numbers.size()) != in_[0].c) refuse(layer_, "wrong channels");
    return in_[0];
  }
  Size with_residual(const Size& y) const {
    if (in_.size() > 1 && !(in_[1] == y)) refuse(layer_, "the sum's operands differ in size");
    return y;
  }
  // All channels of all inputs.
  Size joined() const {
    Size y = in_[0];
    y.c = 0;
    for (const Size& x : in_) {
      Size same = in_[0];
      same.c = x.c;
      if (!(x == same)) refuse(layer_, "inputs differ in size");
      y.c += x.c;
    }
    return y;
  }

  const Layer& layer_;
  const std::vector<Size>& in_;
  const std::vector<Size>& sizes_;
};

}  // namespace

Pair window_of(const Attend& layer, Pair image) {
  const auto side = [&](int64_t all, int64_t given) -> int64_t {
    if (given == 0) return all;
    if (given < 0 || all % given != 0) return 0;
    return layer.dilated ? all / given : given;
  };
  return {side(image.h, layer.window.h), side(image.w, layer.window.w)};
}

Pair convolved(const Convolve& layer, Pair image) {
  const auto side = [](int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t more,
                       int64_t dilation) -> int64_t {
    const int64_t room = size + 2 * padding + more - dilation * (kernel - 1) - 1;
    return room < 0 ? 0 : room / stride + 1;
  };
  const Pair kernel = layer.shape.kernel;
  return {side(image.h, kernel.h, layer.stride.h, layer.padding.h, layer.more_padding.h,
               layer.dilation.h),
          side(image.w, kernel.w, layer.stride.w, layer.padding.w, layer.more_padding.w,
               layer.dilation.w)};
}

std::vector<Size> infer_sizes(const Network& network, const std::vector<Size>& inputs) {
  std::vector<Size> sizes(network.values());
  std::copy(inputs.begin(), inputs.end(), sizes.begin());
  for (const Instruction& i : network.unfused()) {
    std::vector<Size> operands;
    for (const Value v : i.inputs) operands.push_back(sizes[v]);
    sizes[i.output] = std::visit(Infer(i.layer, operands, sizes), i.layer);
  }
  for (const Measure& holds : network.requirements()) {
    if (holds(sizes) == 0) throw std::invalid_argument("the network refuses images of this size");
  }
  return sizes;
}

}  // namespace convship::plan
