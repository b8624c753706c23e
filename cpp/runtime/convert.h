// Between LibTorch's tensors and those of the public header, for whoever stands
// on both: the runtime and the Python binding. Header only, so that neither
// exports it.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>

#include <array>
#include <string>
#include <utility>

#include "convship/model.h"

namespace convship::runtime {

// In the order of DType.
inline constexpr std::array<at::ScalarType, 10> kScalarTypes = {
    at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kLong,
    at::kInt,   at::kShort,  at::kChar,     at::kByte, at::kBool};

// Throws Error(usage) for dtypes that convship::DType does not have.
inline DType dtype_of(const at::Tensor& tensor) {
  for (std::size_t i = 0; i < kScalarTypes.size(); ++i) {
    if (kScalarTypes[i] == tensor.scalar_type()) return static_cast<DType>(i);
  }
  throw Error(ErrorCode::usage, std::string("tensors of dtype ") +
                                    c10::toString(tensor.scalar_type()) + " are not supported");
}

inline at::TensorOptions options_of(DType dtype) {
  return at::TensorOptions().dtype(kScalarTypes.at(static_cast<std::size_t>(dtype)));
}

// Contiguous; shares memory where `tensor` already is.
inline Tensor from_aten(const at::Tensor& tensor) {
  const DType dtype = dtype_of(tensor);
  at::Tensor owner = tensor.to(at::kCPU).contiguous();
  const void* data = owner.const_data_ptr();
  auto shape = owner.sizes().vec();
  return {dtype, std::move(shape),
          std::shared_ptr<const void>(data, [owner](const void*) mutable { owner.reset(); })};
}

// Shares memory with `tensor` and keeps it alive.
inline at::Tensor to_aten(const Tensor& tensor) {
  auto storage = tensor.storage();
  return at::from_blob(
      const_cast<void*>(tensor.data()), tensor.shape(),
      [storage](void*) mutable { storage.reset(); }, options_of(tensor.dtype()));
}

// Shares memory with `view`, which must outlive the result. LibTorch has no
// const tensors; nobody writes to the inputs of a network.
inline at::Tensor to_aten(const TensorView& view) {
  auto* data = const_cast<void*>(view.data);
  if (view.strides.empty()) return at::from_blob(data, view.shape, options_of(view.dtype));
  return at::from_blob(data, view.shape, view.strides, options_of(view.dtype));
}

}  // namespace convship::runtime
