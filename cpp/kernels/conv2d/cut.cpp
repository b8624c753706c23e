#include "kernels/conv2d/cut.h"

#include <unistd.h>

namespace convship::kernels::conv2d {
namespace {

// Waking a thread costs some microseconds, in which this many operations run.
constexpr double kOperationsPerItem = 2e5;

// Bytes of input that a band may copy. A quarter of the smallest second-level
// cache around (512 KB) leaves room for weights and results. Where windows
// overlap, bands sum the rows between them twice, which costs more than a full
// cache does (measured): half of the cache there is.
int64_t strip_bytes(bool overlap) {
  constexpr int64_t kLeast = 128 << 10;
  return overlap ? std::max(kLeast, second_level_cache() / 2) : kLeast;
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
  Cut c{};
  c.band_rows = g.pooled.h;
  const bool overlap = g.pool_size.h > g.pool_stride.h;
  while (c.band_rows > 1 &&
         rows_under(conv_rows_of(c.band_rows, g), g) * strip_row_bytes > strip_bytes(overlap)) {
    c.band_rows = ceil_div(c.band_rows, 2);
  }
  c.part_blocks = blocks;
  const double taps = static_cast<double>(g.c_in / g.groups * g.kernel.h * g.kernel.w);
  const double total = 2 * taps * static_cast<double>(g.n * g.groups * blocks * block_size) *
                       static_cast<double>(g.conv.h * g.conv.w);
  const auto items = [&] {
    return g.n * g.groups * ceil_div(g.pooled.h, c.band_rows) * ceil_div(blocks, c.part_blocks);
  };
  // Some items more than threads, as long as they are worth it. Bands first,
  // unless conv rows would be computed twice at the cuts.
  const int64_t wanted = width > 1 ? 2 * width : 1;
  while (items() < wanted && total / static_cast<double>(2 * items()) > kOperationsPerItem) {
    if (c.part_blocks > 1 && (overlap || c.band_rows < 8)) {
      c.part_blocks = ceil_div(c.part_blocks, 2);
    } else if (c.band_rows > 1) {
      c.band_rows = ceil_div(c.band_rows, 2);
    } else {
      break;
    }
  }
  c.bands = ceil_div(g.pooled.h, c.band_rows);
  c.parts = ceil_div(blocks, c.part_blocks);
  return c;
}

}  // namespace convship::kernels::conv2d
