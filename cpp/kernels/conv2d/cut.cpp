#include "kernels/conv2d/cut.h"

#include <unistd.h>

#include <numeric>

namespace convship::kernels::conv2d {
namespace {

// Waking a thread costs some microseconds, in which this many operations run.
constexpr double kOperationsPerItem = 2e5;

// Where windows overlap, bands sum the rows between them twice, which costs more than a
// full cache does (measured): half of the cache there is.
int64_t strip_bytes(bool overlap) {
  return overlap ? std::max(kBandBytes, second_level_cache() / 2) : kBandBytes;
}

}  // namespace

int64_t second_level_cache() {
  static const int64_t bytes = [] {
    const long found = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return found > 0 ? static_cast<int64_t>(found) : int64_t{1} << 20;
  }();
  return bytes;
}

namespace {

// Conv rows that `bands` of overlapping windows sum, of those that there are.
double summed(const Geometry& g, int64_t bands) {
  const int64_t twice = std::max<int64_t>(0, g.pool_size.h - g.pool_stride.h);
  return 1 + static_cast<double>((bands - 1) * twice) / static_cast<double>(g.conv.h);
}

// The fewest bands that stay in the cache while all blocks of output channels read them;
// fewer where windows overlap and bands would sum more rows than a strip from
// far away costs.
int64_t bands_in_cache(const Geometry& g, int64_t block_size, int64_t row_bytes) {
  const int64_t most = strip_bytes(g.pool_size.h > g.pool_stride.h);
  // Of the time of a block's sums, to read its strip (measured: some bytes a ns, beside some
  // ten multiply-adds).
  constexpr double kAddsPerByte = 5;
  const double far =
      kAddsPerByte * static_cast<double>(row_bytes * g.stride.h) /
      static_cast<double>(g.c_in / g.groups * g.kernel.h * g.kernel.w * block_size * g.conv.w);
  int64_t best = 1;
  double least = 0;
  for (int64_t bands = 1;; bands = std::min(2 * bands, g.pooled.h)) {
    const int64_t rows = ceil_div(g.pooled.h, bands);
    const bool fits = rows_under(conv_rows_of(rows, g), g) * row_bytes <= most;
    const double time = summed(g, bands) + (fits ? 0 : far);
    if (bands == 1 || time <= least) {
      best = bands;
      least = time;
    }
    if (fits || rows == 1) return best;
  }
}

// How long the busiest thread works, as a multiple of its share of the whole.
double busiest(const Geometry& g, int64_t bands, int64_t parts, int64_t blocks, int width) {
  const int64_t items = g.n * g.groups * bands * parts;
  const auto share = [](int64_t count, int64_t ways) {
    return static_cast<double>(ceil_div(count, ways) * ways) / static_cast<double>(count);
  };
  // Input rows between bands, and all of them in each part, are copied again.
  const double cuts = static_cast<double>(bands - 1);
  const double halo = static_cast<double>(std::max<int64_t>(0, rows_under(1, g) - g.stride.h));
  constexpr double kCopy = 0.05;  // of the time
  const double copied =
      kCopy * (cuts * halo / static_cast<double>(g.image.h) + static_cast<double>(parts - 1));
  return share(items, width) * share(g.pooled.h, bands) * share(blocks, parts) *
         (summed(g, bands) + copied);
}

}  // namespace

Cut cut(const Geometry& g, int64_t blocks, int64_t block_size, int64_t strip_row_bytes, int width) {
  int64_t bands = bands_in_cache(g, block_size, strip_row_bytes);
  int64_t parts = 1;
  if (width > 1) {
    const double taps = static_cast<double>(g.c_in / g.groups * g.kernel.h * g.kernel.w);
    const double total = 2 * taps * static_cast<double>(g.n * g.groups * blocks * block_size) *
                         static_cast<double>(g.conv.h * g.conv.w);
    const auto most = static_cast<int64_t>(total / kOperationsPerItem);
    const int64_t least = bands;
    double best = busiest(g, bands, 1, blocks, width);
    const auto consider = [&](int64_t b, int64_t p) {
      if (b > g.pooled.h || g.n * g.groups * b * p > most) return;
      const double time = busiest(g, b, p, blocks, width);
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
  c.band_rows = ceil_div(g.pooled.h, bands);
  c.part_blocks = ceil_div(blocks, parts);
  c.parts = ceil_div(blocks, c.part_blocks);
  return c;
}

}  // namespace convship::kernels::conv2d
