// Packed weights for a layer whose parameters may still change.
#pragma once

#include <ATen/core/Tensor.h>

#include <mutex>
#include <optional>
#include <vector>

#include "convship/export.h"
#include "convship/ops.h"
#include "kernels/conv2d/convolution.h"
#include "ops/packed_conv.h"

namespace convship::ops {

// Packs at the first call and again when weight or bias is another tensor, has
// other memory, sizes or strides, or was written to in place; or when the
// resolved accuracy is another one. The instruction set needs no care:
// PackedConv follows it. Not seen are writes that LibTorch does not count: through
// `.data`, NumPy, or to an inference tensor. Thread-safe.
class CONVSHIP_API PackedCache {
 public:
  // Throws c10::ValueError as conv_pool2d does.
  explicit PackedCache(const ConvPool2dOptions& options);

  // conv_pool2d(input, weight, bias), or an undefined tensor where packed
  // weights cannot serve the call: gradients are recorded, something is between
  // the caller and the kernel (see plain_call.h), or there is no kernel.
  at::Tensor run(const at::Tensor& input,
                 const at::Tensor& weight,
                 const std::optional<at::Tensor>& bias);

  // Packs at the next call, whatever the parameters look like.
  void clear();

 private:
  // A parameter as it was when it was packed. Weak references keep addresses
  // from being used again, and no memory of the tensor.
  class Seen {
   public:
    explicit Seen(const at::Tensor& tensor);
    bool is(const at::Tensor& tensor) const;

   private:
    c10::weak_intrusive_ptr<at::TensorImpl> tensor_;
    c10::weak_intrusive_ptr<c10::StorageImpl> storage_;
    const void* data_;
    int64_t version_;
    at::ScalarType type_;
    std::vector<int64_t> sizes_;
    std::vector<int64_t> strides_;
  };

  struct Entry {
    Seen weight;
    std::optional<Seen> bias;
    kernels::conv2d::Accuracy accuracy;
    c10::intrusive_ptr<PackedConv> packed;
  };

  c10::intrusive_ptr<PackedConv> get(const at::Tensor& weight,
                                     const std::optional<at::Tensor>& bias);

  const Parameters parameters_;
  std::mutex mutex_;
  std::optional<Entry> entry_;
};

}  // namespace convship::ops
