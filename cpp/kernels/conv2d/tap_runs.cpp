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

// Kernel positions whose conv positions [first, last] look into the image.
Range kernel_inside(int64_t first,
                    int64_t last,
                    int64_t kernel,
                    int64_t stride,
                    int64_t padding,
                    int64_t dilation,
                    int64_t extent) {
  Range range{0, kernel};
  while (range.begin < range.end && last * stride - padding + range.begin * dilation < 0) {
    ++range.begin;
  }
  while (range.end > range.begin &&
         first * stride - padding + (range.end - 1) * dilation >= extent) {
    --range.end;
  }
  return range;
}

}  // namespace

TapRuns::TapRuns(int64_t taps)
    : most_(taps),
      lower_(std::numeric_limits<int64_t>::max()),
      runs_{{0, static_cast<int32_t>(taps)}},
      first_{0, 1} {}

TapRuns::TapRuns(const Geometry& g, int64_t channels) {
  const auto rows_of = [&](int64_t r) {
    return kernel_inside(r, r, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h, g.image.h);
  };
  const auto whole = [&](int64_t r) {
    const Range rows = rows_of(r);
    return rows.begin == 0 && rows.end == g.kernel.h;
  };
  while (upper_ < g.conv.h && !whole(upper_)) ++upper_;
  lower_ = g.conv.h;
  while (lower_ > upper_ && !whole(lower_ - 1)) --lower_;
  const Range columns =
      kernel_inside(0, g.conv.w - 1, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w, g.image.w);
  // Appends what rows of the kernel sum; how many taps those are.
  const auto add = [&](Range rows) {
    first_.push_back(static_cast<int32_t>(runs_.size()));
    const std::size_t first = runs_.size();
    for (int64_t c = 0; c < channels; c += kTapChunk) {
      const int64_t count = std::min(kTapChunk, channels - c);
      const int64_t chunk = c * g.kernel.h * g.kernel.w;
      for (int64_t i = rows.begin; i < rows.end; ++i) {
        const int64_t row = chunk + i * g.kernel.w * count;
        append(runs_, first, row + columns.begin * count, row + columns.end * count);
      }
    }
    return channels * (rows.end - rows.begin) * (columns.end - columns.begin);
  };
  for (int64_t r = 0; r < upper_; ++r) most_ = std::max(most_, add(rows_of(r)));
  const int64_t all = add({0, g.kernel.h});
  if (upper_ < g.conv.h) most_ = all;
  for (int64_t r = lower_; r < g.conv.h; ++r) add(rows_of(r));
  first_.push_back(static_cast<int32_t>(runs_.size()));
  skips_ = runs_.size() > 1;
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

RowTaps TapRuns::rows() const { return {runs_.data(), first_.data(), steps_, upper_, lower_}; }

}  // namespace convship::kernels::conv2d
