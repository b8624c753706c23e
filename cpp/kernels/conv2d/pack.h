// The weights of one convolution as one loop reads them.
#pragma once

#include <vector>

#include "kernels/conv2d/convolution.h"

namespace convship::kernels::conv2d {

template <typename T>
struct Call {
  const Geometry& geometry;
  Activation activation;
  const View<const T>& input;
  const View<T>& output;
  const View<const T>& residual;
  const WindowIndex& index;
};

template <typename T>
class Pack {
 public:
  Pack() = default;
  virtual ~Pack() = default;
  Pack(const Pack&) = delete;
  Pack& operator=(const Pack&) = delete;

  // Returns the images that it could not serve: none, but for Winograd.
  virtual std::vector<int64_t> run(const Call<T>& call, const Parallel& parallel) const = 0;
};

}  // namespace convship::kernels::conv2d
