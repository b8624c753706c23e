#include "kernels/conv2d/pool_route.h"

#include <algorithm>
#include <atomic>

namespace convship::kernels::conv2d {
namespace {

// Calls move(p, source) for each pooled value p of one plane and its place
// `source` in the conv plane; false at the first index that points outside.
template <typename Index, typename Move>
bool for_each_winner(const PoolGeometry& g, const Index* index, const Move& move) {
  for (int64_t y = 0; y < g.pooled.h; ++y) {
    for (int64_t x = 0; x < g.pooled.w; ++x) {
      const int64_t p = y * g.pooled.w + x;
      const int64_t tap = index[p];
      if (tap < 0) return false;
      const int64_t row = y * g.stride.h - g.padding.h + tap / g.size.w;
      const int64_t column = x * g.stride.w - g.padding.w + tap % g.size.w;
      if (tap / g.size.w >= g.size.h || row < 0 || row >= g.conv.h || column < 0 ||
          column >= g.conv.w) {
        return false;
      }
      move(p, row * g.conv.w + column);
    }
  }
  return true;
}

// Values of a plane that are worth another thread: some 20 us of work.
constexpr int64_t kValuesPerThread = 16384;

template <typename Plane>
bool all_planes(const PoolGeometry& g, const Parallel& parallel, const Plane& plane) {
  std::atomic<bool> inside = true;
  const int64_t values = std::max<int64_t>(1, g.conv.h * g.conv.w);
  const int64_t grain = std::max<int64_t>(1, kValuesPerThread / values);
  parallel.run(g.planes, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (!plane(i)) inside = false;
    }
  });
  return inside;
}

}  // namespace

template <typename T, typename Index>
bool pool_route(
    const PoolGeometry& g, const T* pooled, const Index* index, T* conv, const Parallel& parallel) {
  const int64_t from_size = g.pooled.h * g.pooled.w;
  const int64_t to_size = g.conv.h * g.conv.w;
  return all_planes(g, parallel, [&](int64_t i) {
    const T* from = pooled + i * from_size;
    T* to = conv + i * to_size;
    std::fill(to, to + to_size, T(0));
    return for_each_winner(g, index + i * from_size,
                           [&](int64_t p, int64_t source) { to[source] += from[p]; });
  });
}

template <typename T, typename Index>
bool pool_gather(
    const PoolGeometry& g, const T* conv, const Index* index, T* pooled, const Parallel& parallel) {
  const int64_t from_size = g.conv.h * g.conv.w;
  const int64_t to_size = g.pooled.h * g.pooled.w;
  return all_planes(g, parallel, [&](int64_t i) {
    const T* from = conv + i * from_size;
    T* to = pooled + i * to_size;
    return for_each_winner(g, index + i * to_size,
                           [&](int64_t p, int64_t source) { to[p] = from[source]; });
  });
}

#define CONVSHIP_INSTANTIATE(T, Index)                                                        \
  template bool pool_route(const PoolGeometry&, const T*, const Index*, T*, const Parallel&); \
  template bool pool_gather(const PoolGeometry&, const T*, const Index*, T*, const Parallel&);
CONVSHIP_INSTANTIATE(float, uint8_t)
CONVSHIP_INSTANTIATE(float, int32_t)
CONVSHIP_INSTANTIATE(double, uint8_t)
CONVSHIP_INSTANTIATE(double, int32_t)
#undef CONVSHIP_INSTANTIATE

}  // namespace convship::kernels::conv2d
