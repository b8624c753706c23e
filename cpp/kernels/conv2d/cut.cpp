#include "kernels/conv2d/cut.h"

#include <unistd.h>

#include <numeric>

namespace convship::kernels::conv2d {
namespace {

// Waking a thread costs some microseconds, in which this many operations run.
constexpr double kOperationsPerItem = 3e5;

// Whether what is row-pooled of all blocks is little enough to be kept from band to band.
bool can_keep_rings(const Geometry& g, int64_t channels) {
  constexpr double kMostValues = 1 << 18;
  return static_cast<double>(g.pool_size.h) * static_cast<double>(g.pooled.w) *
             static_cast<double>(channels) <=
         kMostValues;
}

// How long the busiest thread works, as a multiple of its share of the whole.
double busiest(
    const Geometry& g, int64_t bands, int64_t parts, int64_t blocks, bool rings, int width) {
  const int64_t items = g.n * g.groups * bands * parts;
  const auto share = [](int64_t count, int64_t ways) {
    return static_cast<double>(ceil_div(count, ways) * ways) / static_cast<double>(count);
  };
  // Input rows between bands, and all of them in each part, are copied again. Conv rows
  // under two bands are summed again where the first one's rings are not kept.
  const auto cuts = static_cast<double>(bands - 1);
  const bool kept = rings && parts == 1;
  const auto again = static_cast<double>((kept ? std::min<int64_t>(bands, width) : bands) - 1);
  const auto twice = static_cast<double>(std::max<int64_t>(0, g.pool_size.h - g.pool_stride.h));
  const double summed = 1 + again * twice / static_cast<double>(g.conv.h);
  const double halo = static_cast<double>(std::max<int64_t>(0, rows_under(1, g) - g.stride.h));
  constexpr double kCopy = 0.05;  // of the time
  const double copied =
      kCopy * (cuts * halo / static_cast<double>(g.image.h) + static_cast<double>(parts - 1));
  return share(items, width) * share(g.pooled.h, bands) * share(blocks, parts) * (summed + copied);
}

}  // namespace

int64_t second_level_cache() {
  static const int64_t bytes = [] {
    const long found = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return found > 0 ? static_cast<int64_t>(found) : int64_t{1} << 20;
  }();
  return bytes;
}

Cut cut(const Geometry& g, int64_t blocks, int64_t block_size, int64_t strip_row_bytes, int width) {
  int64_t bands = 1;
  const auto band_rows = [&] { return ceil_div(g.pooled.h, bands); };
  while (band_rows() > 1 &&
         rows_under(conv_rows_of(band_rows(), g), g) * strip_row_bytes > kBandBytes) {
    bands = std::min(2 * bands, g.pooled.h);
  }
  const bool rings = can_keep_rings(g, blocks * block_size);
  int64_t parts = 1;
  if (width > 1) {
    const double taps = static_cast<double>(g.c_in / g.groups * g.kernel.h * g.kernel.w);
    const double total = 2 * taps * static_cast<double>(g.n * g.groups * blocks * block_size) *
                         static_cast<double>(g.conv.h * g.conv.w);
    const auto most = static_cast<int64_t>(total / kOperationsPerItem);
    const int64_t least = bands;
    double best = busiest(g, bands, 1, blocks, rings, width);
    const auto consider = [&](int64_t b, int64_t p) {
      if (b > g.pooled.h || g.n * g.groups * b * p > most) return;
      const double time = busiest(g, b, p, blocks, rings, width);
      if (time < best - 1e-9) {
        best = time;
        bands = b;
        parts = p;
      }
    };
    // Few candidates, since every call looks at them: the fewest bands, and the
    // fewest with which each thread gets as many items.
    for (int64_t p = 1; p <= std::min<int64_t>(blocks, width); ++p) {
      if (ceil_div(blocks, ceil_div(blocks, p)) != p) continue;
      const int64_t even = width / std::gcd<int64_t>(width, g.n * g.groups * p);
      consider(least, p);
      consider(ceil_div(least, even) * even, p);
    }
    consider(std::min(g.pooled.h, 4 * ceil_div(width, g.n * g.groups)), 1);
  }
  Cut c{};
  c.bands = bands;
  c.band_rows = band_rows();
  c.part_blocks = ceil_div(blocks, parts);
  c.parts = ceil_div(blocks, c.part_blocks);
  c.keeps_rings = rings && c.parts == 1 && c.bands > 1 && g.pool_size.h > g.pool_stride.h;
  return c;
}

}  // namespace convship::kernels::conv2d
