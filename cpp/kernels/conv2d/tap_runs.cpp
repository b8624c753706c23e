#include "kernels/conv2d/tap_runs.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/taps.h"

namespace convship::kernels::conv2d {
namespace {

// Appends a run, as part of the one before where they adjoin.
void append(std::vector<TapRun>& runs, std::size_t first, int64_t begin, int64_t end) {
  if (begin >= end) return;
  if (runs.size() > first && runs.back().end == begin) {
    runs.back().end = static_cast<int32_t>(end);
  } else {
    runs.push_back({static_cast<int32_t>(begin), static_cast<int32_t>(end)});
  }
}

// Along one side: kernel positions that meet the image, seen from some of the
// conv positions first to last.
Range kernel_inside(int64_t first,
                    int64_t last,
                    int64_t kernel,
                    int64_t stride,
                    int64_t padding,
                    int64_t dilation,
                    int64_t extent) {
  const auto inside = [&](int64_t position) {
    return sources_inside(position * stride - padding, dilation, extent, kernel);
  };
  return {inside(last).begin, inside(first).end};
}

int64_t size(Range range) { return std::max<int64_t>(0, range.end - range.begin); }

}  // namespace

TapRuns::TapRuns(int64_t taps)
    : most_(taps),
      lower_(std::numeric_limits<int64_t>::max()),
      runs_{{0, static_cast<int32_t>(taps)}},
      first_{0, 1} {}

TapRuns::TapRuns(const Geometry& g, int64_t channels)
    : TapRuns(channels * g.kernel.h * g.kernel.w) {
  const auto rows_between = [&](int64_t first, int64_t last) {
    return kernel_inside(first, last, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h, g.image.h);
  };
  const Range columns =
      kernel_inside(0, g.conv.w - 1, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w, g.image.w);
  const Range all = rows_between(0, g.conv.h - 1);
  // Conv rows whose first and last tap meet the image.
  const int64_t top = g.padding.h - all.begin * g.dilation.h;
  const int64_t bottom = g.image.h - 1 + g.padding.h - (all.end - 1) * g.dilation.h;
  int64_t upper = std::min(g.conv.h, top > 0 ? ceil_div(top, g.stride.h) : 0);
  int64_t lower = bottom < 0 ? 0 : std::min(g.conv.h, bottom / g.stride.h + 1);
  if (size(all) == 0 || lower <= upper) upper = lower = g.conv.h;
  constexpr int64_t kMostRows = 1024;  // near an edge: each has a list
  if (upper + g.conv.h - lower > kMostRows) return;

  upper_ = upper;
  lower_ = lower;
  runs_.clear();
  first_.clear();
  // Appends what some rows of the kernel make; how many taps those are.
  const auto add = [&](Range rows) {
    const std::size_t first = runs_.size();
    first_.push_back(static_cast<int32_t>(first));
    for (int64_t c = 0; c < channels; c += kTapChunk) {
      const int64_t count = std::min(kTapChunk, channels - c);
      const int64_t chunk = c * g.kernel.h * g.kernel.w;
      for (int64_t i = rows.begin; i < rows.end; ++i) {
        const int64_t row = chunk + i * g.kernel.w * count;
        append(runs_, first, row + columns.begin * count, row + columns.end * count);
      }
    }
    return channels * size(rows) * size(columns);
  };
  most_ = 0;
  int64_t sum = 0;
  const auto add_row = [&](int64_t r) {
    const int64_t taps = add(rows_between(r, r));
    most_ = std::max(most_, taps);
    sum += taps;
  };
  for (int64_t r = 0; r < upper; ++r) add_row(r);
  const int64_t whole = add(all);
  if (upper < lower) most_ = whole;
  sum += (lower - upper) * whole;
  for (int64_t r = lower; r < g.conv.h; ++r) add_row(r);
  first_.push_back(static_cast<int32_t>(runs_.size()));
  if (whole > 0) share_ = static_cast<float>(sum) / static_cast<float>(g.conv.h * whole);
}

void TapRuns::cut(int64_t at_once) {
  int64_t end = 0;
  for (const TapRun& run : runs_) end = std::max<int64_t>(end, run.end);
  if (end <= at_once) return;
  steps_ = ceil_div(end, at_once);
  std::vector<TapRun> runs;
  std::vector<int32_t> first;
  for (std::size_t kind = 0; kind + 1 < first_.size(); ++kind) {
    int32_t i = first_[kind];
    for (int64_t step = 0; step < steps_; ++step) {
      first.push_back(static_cast<int32_t>(runs.size()));
      const int64_t begin = step * at_once, last = begin + at_once;
      while (i < first_[kind + 1] && runs_[i].end <= begin) ++i;
      for (int32_t k = i; k < first_[kind + 1] && runs_[k].begin < last; ++k) {
        append(runs, first.back(), std::max<int64_t>(runs_[k].begin, begin),
               std::min<int64_t>(runs_[k].end, last));
      }
    }
  }
  first.push_back(static_cast<int32_t>(runs.size()));
  runs_ = std::move(runs);
  first_ = std::move(first);
}

RowTaps TapRuns::rows() const {
  return {runs_.data(), first_.data(), steps_, upper_, lower_, share_};
}

}  // namespace convship::kernels::conv2d
