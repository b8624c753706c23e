// Which pixels make a tile of the matrix unit. Plain arithmetic, which tests look at on any CPU;
// of internal linkage all the same, see common-inl.h.
#pragma once

#include <cstdint>

namespace convship::kernels::conv2d {
namespace {

constexpr int64_t kTileRows = 16;
// Beside 16 rows, how many a product takes as long as: four of them hide a latency of 52 cycles.
constexpr int64_t kFewestRows = 13;

// Conv rows [first, end) in tiles of equally many pixels, the last of which may begin early.
// Pixels of several rows lie at the same distance from each other where the convolution steps
// over none; then rows may be one, with what lies between them.
struct Spread {
  int64_t first;
  int64_t width;
  int64_t row_pixels = 0;  // from one row to the next one; 0: each row has tiles of its own
  int64_t in_row = 0;      // tiles
  int64_t pixels;          // of a tile
  int64_t count;           // tiles
  int64_t all;             // pixels

  // Rows do not overlap: row_step is at least the width's. even: tiles begin and end at even
  // columns; the width is even.
  Spread(
      int64_t first_, int64_t end, int64_t width_, int64_t row_step, int64_t column_step, bool even)
      : first(first_), width(width_) {
    const int64_t rows = end - first;
    in_row = (width + kTileRows - 1) / kTileRows;
    pixels = (width + in_row - 1) / in_row;
    if (even) pixels = (pixels + 1) / 2 * 2;
    count = rows * in_row;
    all = width;
    if (row_step % column_step != 0) return;
    const int64_t step = row_step / column_step;
    const int64_t joined = (rows - 1) * step + width;
    const int64_t tiles = (joined + kTileRows - 1) / kTileRows;
    if (even && step % 2 != 0) return;
    if (tiles * kTileRows >= count * (pixels < kFewestRows ? kFewestRows : pixels)) return;
    row_pixels = step;
    pixels = joined < kTileRows ? joined : kTileRows;
    count = tiles;
    all = joined;
  }

  struct Tile {
    int64_t row;
    int64_t column;  // may lie behind the row's last one
    int64_t seen;    // pixels that the tile before has, too
  };

  // The tiles one after the other, without divisions.
  class Cursor {
   public:
    explicit Cursor(const Spread& spread) : s_(spread), row_(spread.first) {}

    Tile next() {
      const int64_t last = s_.all - s_.pixels;
      const int64_t begin = place_ < last ? place_ : last;
      Tile tile{row_, column_ + begin - place_, place_ - begin};
      while (tile.column < 0) {
        tile.column += s_.row_pixels;
        --tile.row;
      }
      place_ += s_.pixels;
      column_ += s_.pixels;
      if (s_.row_pixels == 0) {
        if (place_ >= s_.all) {
          place_ = column_ = 0;
          ++row_;
        }
      } else {
        while (column_ >= s_.row_pixels) {
          column_ -= s_.row_pixels;
          ++row_;
        }
      }
      return tile;
    }

   private:
    const Spread& s_;
    int64_t row_;
    int64_t column_ = 0;
    int64_t place_ = 0;  // pixels before it: of the row, or of all
  };

  // Calls visit(row, column, pixel, count) for what is new in a tile: `count` pixels from
  // `pixel` on are those of a conv row, from `column` on.
  template <class Visit>
  void for_each_run(const Tile& tile, const Visit& visit) const {
    const int64_t row_end = row_pixels > 0 ? row_pixels : width;
    int64_t row = tile.row, column = tile.column;
    for (int64_t i = 0; i < pixels; ++row, column = 0) {
      const int64_t rest = i + row_end - column, kept = i + width - column;
      const int64_t next = rest < pixels ? rest : pixels;
      const int64_t begin = i < tile.seen ? tile.seen : i;
      const int64_t end = kept < next ? kept : next;
      if (begin < end) visit(row, column + begin - i, begin, end - begin);
      i = next;
    }
  }
};

}  // namespace
}  // namespace convship::kernels::conv2d
