// A dilated convolution whose taps lie beyond the image for much of the result: one
// convolution of 1x1 for each tap, over that part of the result from which the tap meets
// the image, added to what is there. No zeros are copied or summed.
#pragma once

#include <memory>
#include <vector>

#include "kernels/conv2d/pack.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {

// Whether such sums serve this geometry: it is dilated and padded, is not pooled, and some
// tap meets the image from everywhere, whose convolution comes last and finishes the results.
bool can_sum_per_tap(const Geometry& geometry);

// The time of such sums, and of sums over copies with zeros around them (channels.h), as
// shares of the time that all taps of all results take.
double share_per_tap(const Geometry& geometry);
double share_of_strips(const Geometry& geometry);

// T is float or double: results hold the sums meanwhile.
template <typename T>
class PerTapPack final : public Pack<T> {
 public:
  PerTapPack(const Loops<T>& loops, const WeightShape& shape, const T* weight, const T* bias);

  std::vector<int64_t> run(const Call<T>& call, const Parallel& parallel) const override;

 private:
  std::vector<T> bias_;
  std::vector<std::unique_ptr<const Pack<T>>> taps_;  // of the kernel, row by row
};

}  // namespace convship::kernels::conv2d
