// The plain loop behind the interface of the others: any layout, residual,
// bfloat16, by copies to dense NCHW and back.
#pragma once

#include "kernels/conv2d/pack.h"

namespace convship::kernels::conv2d {

template <typename T>
class PlainPack final : public Pack<T> {
 public:
  // Refers to weight and bias where they need no conversion.
  PlainPack(const WeightShape& shape, const T* weight, const T* bias);
  ~PlainPack() override;
  std::vector<int64_t> run(const Call<T>& call, const Parallel& parallel) const override;

 private:
  struct Widened;
  std::unique_ptr<Widened> widened_;
};

}  // namespace convship::kernels::conv2d
