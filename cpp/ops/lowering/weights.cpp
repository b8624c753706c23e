#include "ops/lowering/weights.h"

#include <algorithm>
#include <cstring>

namespace convship::ops::lowering {

const float* Weights::keep(const at::Tensor& tensor) {
  const auto is_same = [&](const at::Tensor& kept) {
    if (kept.const_data_ptr() == tensor.const_data_ptr()) return kept.numel() == tensor.numel();
    return kept.numel() == tensor.numel() &&
           std::memcmp(kept.const_data_ptr(), tensor.const_data_ptr(), tensor.nbytes()) == 0;
  };
  auto found = std::find_if(tensors_.begin(), tensors_.end(), is_same);
  if (found == tensors_.end()) found = tensors_.insert(found, tensor);
  return found->const_data_ptr<float>();
}

std::shared_ptr<const Weights::Convolution> Weights::convolution(
    const float* weight,
    const float* bias,
    const kernels::conv2d::WeightShape& shape,
    const Rounding& rounding) {
  for (const Packed& packed : packed_) {
    if (packed.weight == weight && packed.bias == bias && packed.shape == shape &&
        packed.convolution->rounding() == rounding) {
      return packed.convolution;
    }
  }
  packed_.push_back(
      {weight, bias, shape,
       std::make_shared<const Convolution>(weight, bias, shape, accuracy_, rounding)});
  return packed_.back().convolution;
}

std::shared_ptr<const kernels::RoundedMatrix> Weights::rounded(const float* weight,
                                                               int64_t rows,
                                                               int64_t features,
                                                               const Rounding& rounding) {
  for (const Rounded& found : rounded_) {
    if (found.weight == weight && found.rows == rows && found.features == features &&
        found.rounding == rounding) {
      return found.matrix;
    }
  }
  rounded_.push_back(
      {weight, rows, features, rounding,
       std::make_shared<const kernels::RoundedMatrix>(weight, rows, features, rounding)});
  return rounded_.back().matrix;
}

}  // namespace convship::ops::lowering
