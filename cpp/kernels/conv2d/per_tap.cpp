#include "kernels/conv2d/per_tap.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "kernels/conv2d/channels.h"
#include "kernels/conv2d/cut.h"

namespace convship::kernels::conv2d {
namespace {

int64_t size(Range range) { return std::max<int64_t>(0, range.end - range.begin); }

// The results from which a tap meets the image.
struct Part {
  Range rows;
  Range columns;
  int64_t results() const { return size(rows) * size(columns); }
  bool is_all_of(const Geometry& g) const {
    return size(rows) == g.conv.h && size(columns) == g.conv.w;
  }
};

Part part_of(const Geometry& g, Pair tap) {
  return {sources_inside(tap.h * g.dilation.h - g.padding.h, g.stride.h, g.image.h, g.conv.h),
          sources_inside(tap.w * g.dilation.w - g.padding.w, g.stride.w, g.image.w, g.conv.w)};
}

double all_taps(const Geometry& g) {
  return static_cast<double>(g.kernel.h * g.kernel.w * g.conv.h * g.conv.w);
}

template <typename Visit>
void for_each_position(Pair kernel, const Visit& visit) {
  for (int64_t i = 0; i < kernel.h; ++i) {
    for (int64_t j = 0; j < kernel.w; ++j) visit(Pair{i, j});
  }
}

std::optional<Pair> tap_from_everywhere(const Geometry& g) {
  std::optional<Pair> found;
  for_each_position(g.kernel, [&](Pair tap) {
    if (!found && part_of(g, tap).is_all_of(g)) found = tap;
  });
  return found;
}

// The call of one tap; its views and its geometry.
template <typename T>
struct TapCall {
  Geometry g;
  View<const T> x;
  View<T> y;

  TapCall(const Call<T>& call, Pair tap, const Part& part)
      : g(call.geometry), x(call.input), y(call.output) {
    const Pair first{part.rows.begin * g.stride.h - g.padding.h + tap.h * g.dilation.h,
                     part.columns.begin * g.stride.w - g.padding.w + tap.w * g.dilation.w};
    x.data += first.h * x.h_step + first.w * x.w_step;
    y.data += part.rows.begin * y.h_step + part.columns.begin * y.w_step;
    g.kernel = g.dilation = {1, 1};
    g.padding = {0, 0};
    g.conv = g.pooled = {size(part.rows), size(part.columns)};
    g.image = {(g.conv.h - 1) * g.stride.h + 1, (g.conv.w - 1) * g.stride.w + 1};
    // Loops go along rows, the longer the better.
    if (g.conv.w < g.conv.h) {
      for (Pair* pair : {&g.stride, &g.conv, &g.pooled, &g.image}) std::swap(pair->h, pair->w);
      std::swap(x.h_step, x.w_step);
      std::swap(y.h_step, y.w_step);
    }
  }
};

// Bias, and the residual where there is one, in a row of the result.
template <typename T>
void begin_row(const Call<T>& call, const T* bias, int64_t n, int64_t row) {
  const Geometry& g = call.geometry;
  const View<T>& y = call.output;
  const View<const T>& r = call.residual;
  const auto step = [](const auto& view) { return view.block > 1 ? 1 : view.c_step; };
  const int64_t to_step = step(y), from_step = step(r);
  const int64_t run = y.block > 1 || r.block > 1 ? kChannelBlock : g.c_out;
  for (int64_t o = 0; o < g.c_out; o += run) {
    const int64_t count = std::min(run, g.c_out - o);
    T* const to = y.at(n, o, row, 0);
    const T* const from = r.data ? r.at(n, o, row, 0) : nullptr;
    const auto begin = [&](int64_t k, int64_t column) {
      to[k * to_step + column * y.w_step] =
          bias[o + k] + (from ? from[k * from_step + column * r.w_step] : T(0));
    };
    if (to_step == 1) {
      for (int64_t column = 0; column < g.conv.w; ++column) {
        for (int64_t k = 0; k < count; ++k) begin(k, column);
      }
    } else {
      for (int64_t k = 0; k < count; ++k) {
        for (int64_t column = 0; column < g.conv.w; ++column) begin(k, column);
      }
    }
  }
}

}  // namespace

bool can_sum_per_tap(const Geometry& g) {
  const bool dilated = g.dilation.h > 1 || g.dilation.w > 1;
  return dilated && is_padded(g) && !is_pooled(g) && tap_from_everywhere(g).has_value();
}

double share_per_tap(const Geometry& g) {
  // Results are read and written again, their tiles begun and ended: measured, in taps.
  constexpr double kTapsOfTile = 64, kMore = 1.15;
  int64_t results = 0;
  for_each_position(g.kernel, [&](Pair tap) { results += part_of(g, tap).results(); });
  const auto channels = static_cast<double>(g.c_in / g.groups);
  return kMore * (1 + kTapsOfTile / channels) * static_cast<double>(results) / all_taps(g);
}

double share_of_strips(const Geometry& g) {
  // Rows of taps that meet nothing but zeros are left out.
  double taps = 0;
  for (int64_t i = 0; i < g.kernel.h; ++i) {
    taps += static_cast<double>(size(part_of(g, {i, 0}).rows) * g.conv.w * g.kernel.w);
  }
  // Of a value, in the time of one output channel's sums: measured.
  constexpr double kCopy = 8;
  const int64_t columns = columns_under(g);
  const int64_t row_bytes = g.c_in / g.groups * columns * static_cast<int64_t>(sizeof(float));
  const int64_t reach = (g.kernel.h - 1) * g.dilation.h;
  const int64_t rows = std::clamp<int64_t>(kBandBytes / row_bytes - reach, 1, g.conv.h);
  const auto copied = static_cast<double>(ceil_div(g.conv.h, rows) * (rows + reach) * columns);
  return (taps + kCopy * copied * static_cast<double>(g.groups) / static_cast<double>(g.c_out)) /
         all_taps(g);
}

template <typename T>
PerTapPack<T>::PerTapPack(const Loops<T>& loops,
                          const WeightShape& shape,
                          const T* weight,
                          const T* bias)
    : bias_(shape.c_out, T(0)) {
  if (bias) std::copy_n(bias, shape.c_out, bias_.data());
  const int64_t planes = shape.c_out * shape.channels, kernel = shape.kernel.h * shape.kernel.w;
  const WeightShape of_tap{shape.c_out, shape.channels, {1, 1}, shape.groups};
  std::vector<T> some(planes);
  for (int64_t tap = 0; tap < kernel; ++tap) {
    for (int64_t plane = 0; plane < planes; ++plane) some[plane] = weight[plane * kernel + tap];
    taps_.push_back(std::make_unique<ChannelsPack<T>>(loops, of_tap, some.data(), nullptr));
  }
}

template <typename T>
std::vector<int64_t> PerTapPack<T>::run(const Call<T>& call, const Parallel& parallel) const {
  const Geometry& g = call.geometry;
  parallel.run(g.n * g.conv.h, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) begin_row(call, bias_.data(), i / g.conv.h, i % g.conv.h);
  });
  const Pair last = *tap_from_everywhere(g);
  const auto add = [&](Pair tap, const Part& part, Activation activation) {
    const TapCall<T> one(call, tap, part);
    const View<const T> so_far = read_only(one.y);
    taps_[tap.h * g.kernel.w + tap.w]->run({one.g, activation, one.x, one.y, so_far, {}}, parallel);
  };
  for_each_position(g.kernel, [&](Pair tap) {
    const Part part = part_of(g, tap);
    const bool is_last = tap.h == last.h && tap.w == last.w;
    if (part.results() > 0 && !is_last) add(tap, part, Activation::none);
  });
  add(last, part_of(g, last), call.activation);
  return {};
}

template class PerTapPack<float>;
template class PerTapPack<double>;

}  // namespace convship::kernels::conv2d
