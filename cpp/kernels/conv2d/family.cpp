#include "kernels/conv2d/family.h"

#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/dilation.h"
#include "kernels/conv2d/per_tap.h"
#include "kernels/conv2d/tasks.h"
#include "kernels/conv2d/tiles.h"
#include "kernels/conv2d/winograd.h"

namespace convship::kernels::conv2d {

const char* family_name(Family family) {
  switch (family) {
    case Family::plain:
      return "plain";
    case Family::channels:
      return "channels";
    case Family::columns:
      return "columns";
    case Family::depthwise:
      return "depthwise";
    case Family::winograd_2x2_3x3:
      return "winograd 2x2, 3x3";
    case Family::winograd_4x4_3x3:
      return "winograd 4x4, 3x3";
    case Family::winograd_2x2_5x5:
      return "winograd 2x2, 5x5";
    case Family::groups:
      return "groups";
    case Family::per_tap:
      return "per tap";
    case Family::words_bfloat16:
      return "channels, bfloat16";
    case Family::words_int8:
      return "channels, int8";
    case Family::tiles_bfloat16:
      return "tiles, bfloat16";
    case Family::tiles_int8:
      return "tiles, int8";
  }
  return "unknown";
}

int64_t fewest_channels(Family family) {
  switch (family) {
    case Family::winograd_2x2_3x3:
      return 12;
    case Family::winograd_4x4_3x3:
      return 64;
    case Family::winograd_2x2_5x5:
      return 48;
    default:
      return 1;
  }
}

bool has_small_groups(const Geometry& g, int lanes) {
  const int64_t width = g.c_in / g.groups;
  return g.c_in > 1 && g.c_out == g.c_in && width <= lanes && lanes % width == 0 && !is_pooled(g);
}

namespace {

// Buffers hold a window's rows and the columns beside a row; larger windows are
// no case for speed.
constexpr int64_t kLargestWindow = 64;

// Multiplications per input and output channel, and the reading of the
// weights, which costs as much as some tiles, more of them the faster those are:
// with few tiles, small transforms of the weights win.
double cost(const Geometry& g, int64_t lanes, int64_t out, int64_t points) {
  // Measured with 8 lanes, the weights not in a cache; with 16, before they were
  // fetched ahead.
  const double weights_in_tiles = 1.25 * static_cast<double>(lanes);
  const int64_t tiles = ceil_div(g.conv.h, out) * ceil_div(g.conv.w, out);
  return static_cast<double>(points) * (static_cast<double>(tiles) + weights_in_tiles);
}

// Output channels that a loop of `vectors` at a time sums, for each that exists.
double padding_of(const Geometry& g, int64_t lanes, int64_t vectors) {
  const int64_t out = g.c_out / g.groups, step = lanes * vectors;
  return static_cast<double>(ceil_div(out, step) * step) / static_cast<double>(out);
}

// Plain where none is faster than a direct sum of this share of all taps.
Family fastest_winograd(const Geometry& g, int64_t lanes, double share) {
  const int64_t k = g.kernel.h;
  const int64_t phases = g.dilation.h * g.dilation.w;
  if (g.kernel.w != k || (k != 3 && k != 5) || g.stride.h != 1 || g.stride.w != 1 ||
      (phases > 1 && !has_dilation_phases(g)) || g.c_out / g.groups < 16) {
    return Family::plain;
  }
  // The first is the largest, by a row and a column at most.
  const Geometry phase = phases > 1 ? dilation_phase(g, {0, 0}).geometry : g;
  const int64_t channels = g.c_in / g.groups;
  struct Variant {
    Family family;
    int64_t taps, out, points;
  };
  constexpr Variant kVariants[] = {
      {Family::winograd_2x2_3x3, 3, 2, 16},
      {Family::winograd_4x4_3x3, 3, 4, 36},
      {Family::winograd_2x2_5x5, 5, 2, 36},
  };
  const double padding = padding_of(g, lanes, winograd_vectors(g.c_out / g.groups, lanes));
  Family best = Family::plain;
  double least = share * cost(g, lanes, 1, k * k) * padding_of(g, lanes, 1);
  for (const Variant& v : kVariants) {
    const double c = static_cast<double>(phases) * cost(phase, lanes, v.out, v.points) * padding;
    if (v.taps == k && channels >= fewest_channels(v.family) && c < least) {
      best = v.family;
      least = c;
    }
  }
  return best;
}

// Multiply-adds of vectors that take as long as a call: its sums, with the lanes and the
// moments that loops leave unused, and what is copied first (measured: a value of the input
// takes as long as so many of them).
double sums_of(const Geometry& g, double use) {
  return static_cast<double>(g.c_in / g.groups * g.kernel.h * g.kernel.w) *
         static_cast<double>(g.c_out * g.conv.h * g.conv.w) / use;
}

double values_of(const Geometry& g) {
  return static_cast<double>(g.c_in) * static_cast<double>(g.image.h * g.image.w);
}

// One vector of channels has more loads a sum than two, and a multiply-add every half cycle
// needs eight sums in flight.
double channels_time(const Geometry& g, int lanes, bool channels_adjoin) {
  const int64_t out = g.c_out / g.groups, in = g.c_in / g.groups;
  const int64_t vectors = ceil_div(out, lanes);
  const double use =
      static_cast<double>(out) / static_cast<double>(vectors) * (vectors == 1 ? 0.8 : 1);
  const bool in_place = !is_padded(g) && (in <= 8 || channels_adjoin);
  const double pool =
      is_pooled(g) ? 2 * static_cast<double>(g.groups * vectors * g.conv.h * g.conv.w) : 0;
  return sums_of(g, use) + values_of(g) * (in_place ? 0 : in >= 16 ? 1.1 : 0.4) + pool;
}

double columns_time(const Geometry& g, int lanes, bool channels_adjoin) {
  const int64_t out = g.c_out / g.groups, channels = std::min<int64_t>(out, 3);
  const int64_t vectors = ceil_div(g.conv.w, lanes);
  // Each value is loaded for three channels, and by kernels of one column from where all
  // channels find it again.
  constexpr int64_t kFirstLevelValues = 6 << 10;
  const int64_t strip = rows_under(conv_rows_of(1, g), g) * (g.c_in / g.groups) * g.image.w;
  const bool far = g.kernel.w == 1 && strip > kFirstLevelValues && out > 3;
  const double loads = channels == 1 ? 0.6 : far ? 0.75 : 0.9;
  // Columns that are wanted of `columns`, `flying` vectors of sums at once.
  const auto sums = [&](int64_t wanted, int64_t columns, int64_t flying) {
    const double use = static_cast<double>(wanted) / static_cast<double>(columns) *
                       std::min(1.0, static_cast<double>(flying) / 8);
    return sums_of(g, use * lanes * loads);
  };
  double in_memory = sums(g.conv.w, vectors * lanes,
                          channels * std::min<int64_t>(vectors, columns_wide(channels)));
  if (g.stride.h == 1 && g.stride.w == 1) {
    in_memory = std::min(in_memory, sums(g.conv.w, g.conv.w + (g.kernel.w - 1) * g.dilation.w, 8));
  }
  // Then rows are pooled one channel at a time, and written one value at a time where
  // channels adjoin.
  if (channels_adjoin) in_memory /= 0.6;
  in_memory += static_cast<double>(g.c_out * g.conv.h * (40 + 6 * vectors));
  const double in_registers =
      pools_pairs(pool_of(g))
          ? sums(2 * g.pooled.w, 2 * ceil_div(g.pooled.w, lanes) * lanes, 4 * channels)
          : in_memory;
  // Rows split into more phases than vectors can be interleaved are split one
  // value at a time.
  const double split = g.stride.w == 1 ? 0.5 : g.stride.w <= 4 ? 1 : 4;
  return std::min(in_memory, in_registers) + values_of(g) * split;
}

// Whether channels fill lanes. Even for one tap planes had better become vectors of channels.
bool is_depthwise(const Geometry& g, const Choice& choice) {
  return g.groups == g.c_in && g.c_out == g.c_in && g.c_out >= choice.lanes / 2;
}

// A strip's values must be countable in 32 bits: its channels, the rows under a
// pooled row, its columns.
bool fits_strips(const Geometry& g) {
  constexpr double kMost = 1 << 30;
  const double rows = static_cast<double>((g.pool_size.h - 1) * g.stride.h) +
                      static_cast<double>((g.kernel.h - 1) * g.dilation.h) + 1;
  const double columns = static_cast<double>(g.image.w + 2 * g.padding.w) +
                         static_cast<double>(kLargestWindow * g.stride.w);
  return static_cast<double>(g.c_in / g.groups + 16) * rows * columns < kMost;
}

// Two bfloat16 are multiplied and added in the time of one float; Winograd's
// 4x4 still needs less (measured), as do columns where lanes would idle.
Family choose_bfloat16(const Geometry& g, const Choice& choice, Family other) {
  if (other == Family::winograd_4x4_3x3) return other;
  const int64_t channels = g.c_in / g.groups;
  const double pairs = static_cast<double>(channels) / static_cast<double>((channels + 1) / 2);
  const bool columns = other == Family::columns;
  return columns && pairs * columns_time(g, choice.lanes, choice.channels_adjoin) <
                        channels_time(g, choice.lanes, /*channels_adjoin=*/false)
             ? other
             : Family::words_bfloat16;
}

// In vectors' multiply-adds for a pixel: what a tile of 16 pixels by 16 channels takes, with what
// surrounds it. Neither layout nor image decide, as they may among loops that have the same bits.
bool tiles_are_faster(const Geometry& g, int lanes) {
  const int64_t channels = g.c_in / g.groups, out = g.c_out / g.groups;
  const WordOrder order = order_of_tiles({out, channels, g.kernel, 1}, /*in_word=*/2);
  const int64_t run = run_words(order.chunk / order.in_word, g.kernel, g.dilation);
  const int64_t tiles = (2 * order.count(g.kernel) / run + 10) * ceil_div(out, kWordLanes);
  return tiles * lanes < channels * g.kernel.h * g.kernel.w * out;
}

}  // namespace

Family choose(const Geometry& g, const Choice& choice) {
  if (choice.lanes == 0 || (is_padded(g) && !choice.may_expand) ||
      std::max(g.pool_size.h, g.pool_size.w) > kLargestWindow || !fits_strips(g)) {
    return Family::plain;
  }
  if (choice.tiles == Rounding::Kind::int8) return Family::tiles_int8;
  if (choice.tiles == Rounding::Kind::bfloat16 && tiles_are_faster(g, choice.lanes)) {
    return Family::tiles_bfloat16;
  }
  if (choice.words == Rounding::Kind::int8) return Family::words_int8;
  if (choice.words == Rounding::Kind::bfloat16) {
    Choice floats = choice;
    floats.words = Rounding::Kind::none;
    return choose_bfloat16(g, choice, choose(g, floats));
  }
  const bool small_groups = has_small_groups(g, choice.lanes);
  if (small_groups && choice.groups) return Family::groups;
  bool per_tap = false;
  double share = 1;  // of the time of all taps, that direct sums take
  if (choice.per_tap && !small_groups && g.c_out / g.groups >= choice.lanes && can_sum_per_tap(g)) {
    const double of_taps = share_per_tap(g);
    per_tap = of_taps < share_of_strips(g);
    if (per_tap) share = of_taps;
  }
  // A transform of infinite weights is NaN, where their sum may be infinite.
  if (choice.may_round && choice.may_expand && !small_groups) {
    const Family family = fastest_winograd(g, choice.lanes, share);
    if (family != Family::plain) return family;
  }
  if (per_tap) return Family::per_tap;
  if (choice.depthwise && is_depthwise(g, choice)) return Family::depthwise;
  return columns_time(g, choice.lanes, choice.channels_adjoin) <
                 channels_time(g, choice.lanes, choice.channels_adjoin)
             ? Family::columns
             : Family::channels;
}

}  // namespace convship::kernels::conv2d
