// How a call is cut for threads: nothing is left out, and no thread waits long.
#include "kernels/conv2d/cut.h"

#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "kernels/conv2d/isa/tile-spread-inl.h"

namespace {

using namespace convship::kernels::conv2d;

Geometry geometry(int64_t n, int64_t channels, int64_t height, int64_t width) {
  Geometry g{};
  g.n = n;
  g.groups = 1;
  g.c_in = g.c_out = channels;
  g.image = g.conv = g.pooled = {height, width};
  g.kernel = {3, 3};
  g.padding = g.stride = g.dilation = g.pool_size = g.pool_stride = {1, 1};
  return g;
}

}  // namespace

TEST_CASE("bands and parts cover every row and every block once") {
  std::mt19937 random(1);
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int number = 0; number < 20'000; ++number) {
    Geometry g = geometry(draw(1, 5), draw(1, 700), draw(1, 90), draw(1, 90));
    const int64_t window = draw(1, 3), step = draw(1, 3);
    g.pool_size = {window, window};
    g.pool_stride = {step, step};
    g.pooled.h = std::max<int64_t>(0, g.conv.h - window) / step + 1;
    const int64_t blocks = draw(1, 20);
    const Cut c = cut(g, blocks, 32, draw(0, 1) * draw(1, 1 << 16), static_cast<int>(draw(1, 9)));
    CAPTURE(number);
    REQUIRE(c.bands >= 1);
    int64_t next = 0;
    for (int64_t band = 0; band < c.bands; ++band) {
      const Range rows = c.rows(band, g);
      REQUIRE(rows.begin == next);
      REQUIRE(rows.end > rows.begin);
      REQUIRE(rows.end - rows.begin <= c.band_rows);
      next = rows.end;
    }
    REQUIRE(next == g.pooled.h);
    REQUIRE(c.parts * c.part_blocks >= blocks);
    REQUIRE((c.parts - 1) * c.part_blocks < blocks);
  }
}

TEST_CASE("two threads get halves") {
  // As at::parallel_for gives work out: the first half of the items, and the others.
  for (int64_t height = 7; height <= 60; ++height) {
    for (const int64_t blocks : {1, 2, 3, 8}) {
      const Geometry g = geometry(1, 256, height, 56);
      const Cut c = cut(g, blocks, 32, 0, 2);
      const int64_t items = c.bands * c.parts, half = ceil_div(items, 2);
      double first = 0, all = 0;
      for (int64_t number = 0; number < items; ++number) {
        const Item item = c.item(number, g);
        const Range rows = c.rows(item.band, g);
        const int64_t mine =
            std::min(blocks, (item.part + 1) * c.part_blocks) - item.part * c.part_blocks;
        const auto work = static_cast<double>((rows.end - rows.begin) * mine);
        all += work;
        first += number < half ? work : 0;
      }
      CAPTURE(height);
      CAPTURE(blocks);
      CHECK(std::max(first, all - first) <= (blocks % 2 == 0 ? 0.53 : 0.58) * all);
    }
  }
}

TEST_CASE("tiles of pixels have every result once, where its sum is") {
  std::mt19937 random(2);
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  int joined = 0;
  for (int number = 0; number < 20'000; ++number) {
    CAPTURE(number);
    const bool even = draw(0, 1) == 1;
    const int64_t first = draw(0, 9), rows = draw(1, 20);
    const int64_t width = even ? 2 * draw(1, 40) : draw(1, 80);
    const int64_t column_step = draw(1, 3) * 16;
    const int64_t row_step = width * column_step + draw(0, 6) * (draw(0, 1) == 1 ? column_step : 7);
    const Spread spread(first, first + rows, width, row_step, column_step, even);
    joined += spread.row_pixels > 0 && rows > 1 ? 1 : 0;
    REQUIRE(spread.pixels <= kTileRows);
    std::vector<int> seen(rows * width);
    Spread::Cursor cursor(spread);
    for (int64_t i = 0; i < spread.count; ++i) {
      const Spread::Tile tile = cursor.next();
      const int64_t begin = tile.row * row_step + tile.column * column_step;
      spread.for_each_run(tile, [&](int64_t row, int64_t column, int64_t pixel, int64_t count) {
        REQUIRE(pixel + count <= spread.pixels);
        REQUIRE(row >= first);
        REQUIRE(row < first + rows);
        REQUIRE(column + count <= width);
        REQUIRE(begin + pixel * column_step == row * row_step + column * column_step);
        if (even) REQUIRE((column % 2 == 0 && count % 2 == 0));
        for (int64_t k = 0; k < count; ++k) ++seen[(row - first) * width + column + k];
      });
    }
    REQUIRE(seen == std::vector<int>(rows * width, 1));
  }
  CHECK(joined > 1'000);
}
