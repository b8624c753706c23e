#include "ops/lowering/heads.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "ops/lowering/constants.h"

namespace convship::ops::lowering {

using Side = Axis::Side;

namespace {

// Of positions that are a part of the pixels: windows of neighbours, or of pixels as far
// apart as others tell.
bool find_window(const Axes& positions, const Axes& before, Heads& found) {
  if (positions.size() != 2 || positions[0].side != Side::h || positions[1].side != Side::w) {
    return false;
  }
  Axes others;
  std::copy_if(before.begin(), before.end(), std::back_inserter(others),
               [](const Axis& axis) { return axis.side == Side::h || axis.side == Side::w; });
  if (others.size() != 2) return false;
  if (others[0].side == Side::w) std::swap(others[0], others[1]);
  if (others[0].side != Side::h || others[1].side != Side::w) return false;
  const bool near = positions[0].step == 1 && positions[1].step == 1;
  const Axes& inner = near ? positions : others;
  const Axes& outer = near ? others : positions;
  for (int i = 0; i < 2; ++i) {
    if (inner[i].step != 1 || inner[i].count != outer[i].step) return false;
  }
  found.window = {outer[0].step, outer[1].step};
  found.dilated = !near;
  return true;
}

bool counts_windows(const Axes& axes) {
  return axes.size() == 2 && axes[0].side == Side::h && axes[1].side == Side::w;
}

}  // namespace

std::optional<Heads> heads_of(const Arrangement& x, const Dimensions& whole) {
  if (x.rank() < 3) return {};
  Heads found;
  const Axes pixels = joined(whole, 2);
  found.of_channels = !pixels.empty() && x.dimensions.back() == pixels;
  const Axes& depth = x.dimensions[x.rank() - (found.of_channels ? 2 : 1)];
  if (depth.size() > 1 || (depth.size() == 1 && (!is_channel(depth[0]) || depth[0].step != 1))) {
    return {};
  }
  found.depth = depth.empty() ? 1 : depth[0].count.value_or(0);
  Axes before;
  for (std::size_t d = 0; d + 2 < x.rank(); ++d) {
    Axes others;
    for (const Axis& axis : x.dimensions[d]) {
      before.push_back(axis);
      if (!is_channel(axis)) {
        others.push_back(axis);
      } else if (found.heads > 1 || axis.step != found.depth || !axis.count) {
        return {};
      } else {
        found.heads = *axis.count;
      }
    }
    found.others.push_back(std::move(others));
  }
  if (count(whole[1]) != found.heads * found.depth) return {};
  if (found.of_channels) return found;
  const Axes& positions = x.dimensions[x.rank() - 2];
  if (positions != pixels && !find_window(positions, before, found)) return {};
  return found;
}

at::Tensor bias_of(const at::Tensor& given, const Dimensions& queries, const Dimensions& keys) {
  const auto spread = with_rank(given, queries.size());
  if (!spread) return {};
  const at::Tensor& constant = *spread;
  int64_t windows = 1, heads = 1;
  for (std::size_t d = 0; d + 2 < queries.size(); ++d) {
    const int64_t size = constant.size(static_cast<int64_t>(d));
    const Axes& axes = queries[d];
    if (size == 1) continue;
    if (counts_windows(axes) && heads == 1) {
      windows = size;
    } else if (axes.size() == 1 && is_channel(axes[0]) && axes[0].count == size) {
      heads = size;
    } else {
      return {};
    }
  }
  // One for all positions, as of keys that are padding.
  const Axes &rows = queries[queries.size() - 2], &columns = keys[keys.size() - 2];
  int64_t positions[] = {constant.size(-2), constant.size(-1)};
  for (int i = 0; i < 2; ++i) {
    if (positions[i] != 1) continue;
    const auto many = count(i == 0 ? rows : columns);
    if (!many && rows != columns) return {};
    positions[i] = many ? *many : positions[1 - i];
  }
  // The graph may write to it later.
  return constant.reshape({windows, heads, constant.size(-2), constant.size(-1)})
      .expand({windows, heads, positions[0], positions[1]})
      .clone();
}

at::Tensor factors_of(const at::Tensor& given, const Dimensions& queries) {
  const auto spread = with_rank(given, queries.size());
  if (!spread) return {};
  const at::Tensor& constant = *spread;
  for (std::size_t d = 0; d + 2 < queries.size(); ++d) {
    const Axes& axes = queries[d];
    const int64_t size = constant.size(static_cast<int64_t>(d));
    const bool of_heads = axes.size() == 1 && is_channel(axes[0]) && axes[0].count == size;
    if (of_heads && size == constant.numel()) return constant.reshape({size});
  }
  return {};
}

}  // namespace convship::ops::lowering
