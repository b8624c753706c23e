// The weights of a part's layers: packed once, for whatever sizes of input it is lowered.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "kernels/conv2d/convolution.h"
#include "kernels/layers/rounded_matrix.h"

namespace convship::ops::lowering {

// Equal numbers are kept once, also those of two layers. Not thread-safe.
class Weights {
 public:
  using Convolution = kernels::conv2d::Convolution<float>;
  using Rounding = kernels::conv2d::Rounding;

  explicit Weights(kernels::conv2d::Accuracy accuracy) : accuracy_(accuracy) {}
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  // Of a dense tensor of float32: memory that lives as long as this.
  const float* keep(const at::Tensor& tensor);

  // Of memory that is kept; bias may be null.
  std::shared_ptr<const Convolution> convolution(const float* weight,
                                                 const float* bias,
                                                 const kernels::conv2d::WeightShape& shape,
                                                 const Rounding& rounding = {});
  std::shared_ptr<const kernels::RoundedMatrix> rounded(const float* weight,
                                                        int64_t rows,
                                                        int64_t features,
                                                        const Rounding& rounding);

 private:
  struct Packed {
    const float* weight;
    const float* bias;
    kernels::conv2d::WeightShape shape;
    std::shared_ptr<const Convolution> convolution;
  };
  struct Rounded {
    const float* weight;
    int64_t rows;  // equal numbers are kept once, whatever their shape
    int64_t features;
    Rounding rounding;
    std::shared_ptr<const kernels::RoundedMatrix> matrix;
  };

  kernels::conv2d::Accuracy accuracy_;
  std::vector<at::Tensor> tensors_;
  std::vector<Packed> packed_;
  std::vector<Rounded> rounded_;
};

}  // namespace convship::ops::lowering
