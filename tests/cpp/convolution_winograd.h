// How far Winograd's sums may be from the exact ones.
//
//   Y = A' [ sum over c of (G g G') . (B' d B) ] A
//
// Every value passes through at most L roundings (the transforms' few, one for
// each channel), so with absolute values in place of all
// entries the same formula, times gamma(L), bounds the error (B. Barabasz et
// al., Error Analysis and Improving the Accuracy of Winograd Convolution,
// 2020). Replacing |d| by its maximum X makes that
//   gamma(L) * sum over c of W[o][c] * X[c],
// a 1x1 convolution. X is taken over every tile that may hold the value, so
// that it does not matter where the kernels begin their tiles. Where products
// may overflow, kernels must fall back to direct sums, and those bound them.
//
// That is what is proven; but errors of random signs add up to far less than
// their sum, and a lost tap would hide under it. So the tests ask for a share
// of it: five times the worst that all random shapes come to.
#pragma once

#include <vector>

#include "convolution_reference.h"
#include "kernels/conv2d/family.h"

namespace convolution_test {

// outputs x outputs results from (outputs + taps - 1)^2 products; the points
// are finite, infinity is one more.
struct WinogradTile {
  int outputs;
  int taps;
  std::vector<double> points;
  // On a value's way through the transforms of two dimensions: of weights 2
  // (computed in double, stored), and of inputs and outputs twice 1 + 2, or
  // twice 2 + 4 with the finite points +-a, +-b.
  int roundings;
  double share;
};

inline WinogradTile winograd_tile(Family family) {
  const std::vector<double> six{0, 0.625, -0.625, 1.5, -1.5};
  switch (family) {
    case Family::winograd_2x2_3x3:
      return {2, 3, {0, 1, -1}, 8, 0.02};
    case Family::winograd_4x4_3x3:
      return {4, 3, six, 14, 0.004};
    case Family::winograd_2x2_5x5:
      return {2, 5, six, 14, 0.002};
    default:
      return {0, 0, {}, 0, 1};
  }
}

// For the row of a point: what |A'|, |G| and the row sum of |B'| are made of.
struct WinogradPoint {
  std::vector<double> to_outputs;  // [outputs]
  std::vector<double> from_taps;   // [taps]
  double from_inputs;
};

inline std::vector<WinogradPoint> winograd_points(const WinogradTile& tile) {
  std::vector<WinogradPoint> rows;
  for (std::size_t p = 0; p <= tile.points.size(); ++p) {
    const bool infinite = p == tile.points.size();
    WinogradPoint row{{}, {}, 0};
    double divisor = 1;
    std::vector<double> polynomial{1};  // product of (x - other points)
    for (std::size_t q = 0; q < tile.points.size(); ++q) {
      if (q == p) continue;
      if (!infinite) divisor *= tile.points[p] - tile.points[q];
      polynomial.insert(polynomial.begin(), 0);
      for (std::size_t i = 0; i + 1 < polynomial.size(); ++i) {
        polynomial[i] -= tile.points[q] * polynomial[i + 1];
      }
    }
    for (double coefficient : polynomial) row.from_inputs += std::fabs(coefficient);
    const auto power = [&](int k, int last) {
      return infinite ? (k == last ? 1.0 : 0.0) : std::fabs(std::pow(tile.points[p], k));
    };
    for (int k = 0; k < tile.outputs; ++k) row.to_outputs.push_back(power(k, tile.outputs - 1));
    for (int k = 0; k < tile.taps; ++k) {
      row.from_taps.push_back(power(k, tile.taps - 1) / std::fabs(divisor));
    }
    rows.push_back(row);
  }
  return rows;
}

// W of one kernel: the worst of the tile's outputs.
template <typename Wide>
Wide winograd_growth(const WinogradTile& tile,
                     const std::vector<WinogradPoint>& points,
                     const Wide* kernel) {
  std::vector<double> sums(tile.outputs * tile.outputs);
  for (const WinogradPoint& a : points) {
    for (const WinogradPoint& b : points) {
      double product = 0;
      for (int i = 0; i < tile.taps; ++i) {
        for (int j = 0; j < tile.taps; ++j) {
          const auto weight = static_cast<double>(kernel[i * tile.taps + j]);
          product += a.from_taps[i] * b.from_taps[j] * std::fabs(weight);
        }
      }
      product *= a.from_inputs * b.from_inputs;
      for (int k = 0; k < tile.outputs * tile.outputs; ++k) {
        sums[k] += a.to_outputs[k / tile.outputs] * b.to_outputs[k % tile.outputs] * product;
      }
    }
  }
  return *std::max_element(sums.begin(), sums.end());
}

// X of one plane: maxima of |x| over what any tile with that conv value reads.
template <typename Wide>
void reached(const Geometry& g, const WinogradTile& tile, const Wide* x, Wide* to) {
  // A dilated tile is one of every so many rows and columns.
  const Pair d = g.dilation;
  const auto first = [&](int64_t from, int64_t step) {
    const int64_t reach = from - (tile.outputs - 1) * step;
    return reach >= 0 ? reach : (reach % step + step) % step;
  };
  const int64_t after = tile.outputs + tile.taps - 2;
  std::vector<Wide> rows(g.image.h * g.conv.w);
  for (int64_t y = 0; y < g.image.h; ++y) {
    for (int64_t z = 0; z < g.conv.w; ++z) {
      Wide most = 0;
      const int64_t from = z * g.stride.w - g.padding.w;
      for (int64_t i = first(from, d.w); i <= std::min(g.image.w - 1, from + after * d.w);
           i += d.w) {
        most = std::max(most, std::fabs(x[y * g.image.w + i]));
      }
      rows[y * g.conv.w + z] = most;
    }
  }
  for (int64_t y = 0; y < g.conv.h; ++y) {
    std::fill(to + y * g.conv.w, to + (y + 1) * g.conv.w, Wide(0));
    const int64_t from = y * g.stride.h - g.padding.h;
    for (int64_t i = first(from, d.h); i <= std::min(g.image.h - 1, from + after * d.h); i += d.h) {
      for (int64_t z = 0; z < g.conv.w; ++z) {
        Wide& most = to[y * g.conv.w + z];
        most = std::max(most, rows[i * g.conv.w + z]);
      }
    }
  }
}

// Kernels of the family's size, a stride of 1 or a divisor of the dilation.
template <typename T, typename Wide = typename Numbers<T>::Wide>
Expected<Wide> expected_by_winograd(const Case& c, const Tensors<Wide>& t, Family family) {
  const WinogradTile tile = winograd_tile(family);
  const auto points = winograd_points(tile);
  const Geometry& g = c.g;
  Case growth = c;
  growth.g.image = g.conv;
  growth.g.kernel = growth.g.stride = growth.g.dilation = {1, 1};
  growth.g.padding = {0, 0};
  Tensors<Wide> factors = magnitudes(t);
  factors.w.clear();
  const int64_t area = g.kernel.h * g.kernel.w;
  for (std::size_t i = 0; i < t.w.size(); i += area) {
    factors.w.push_back(winograd_growth(tile, points, t.w.data() + i));
  }
  factors.x.assign(g.n * g.c_in * g.conv.h * g.conv.w, 0);
  for (int64_t plane = 0; plane < g.n * g.c_in; ++plane) {
    reached(g, tile, t.x.data() + plane * g.image.h * g.image.w,
            factors.x.data() + plane * g.conv.h * g.conv.w);
  }
  Wide most = 1;
  for (const Wide weight : factors.w) most = std::max(most, weight);
  std::vector<Wide> sums = full_sums(growth, factors);
  const std::vector<Wide> direct = full_sums(c, magnitudes(t));
  const auto channels = static_cast<double>(g.c_in / g.groups);
  const double terms = channels + tile.roundings + 2;
  // As many roundings as a direct sum has; twice, since gamma grows faster.
  const double direct_share = 2 * (channels * static_cast<double>(area) + 2) / terms;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const bool safe = sums[i] < Numbers<T>::kMost;
    sums[i] = safe ? sums[i] * tile.share : direct[i] * direct_share;
  }
  const double underflow = Numbers<T>::kUnderflow * static_cast<double>(most);
  return expected_within<T>(c, t, sums, terms, underflow);
}

}  // namespace convolution_test
