// conv_pool2d with weights that were packed beforehand: for networks that no
// longer learn.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <optional>

#include "convship/export.h"
#include "convship/ops.h"
#include "kernels/conv2d/convolution.h"
#include "ops/conv_pool2d.h"

namespace convship::ops {

// Weights in the order in which the kernels read them, and the arguments of
// conv_pool2d that belong to them. Immutable; may be used by many threads.
//
// Holds copies of weight and bias, and an instruction set's packing when a call
// first needs it: writing to the originals changes nothing here, not even
// half-way. Accuracy "default" is resolved when the weights are packed.
class CONVSHIP_API PackedConv : public torch::CustomClassHolder {
 public:
  // Checks what conv_pool2d checks of them. Throws c10::NotImplementedError
  // where the kernels do not serve the dtype, device or layout.
  static c10::intrusive_ptr<PackedConv> pack(const at::Tensor& weight,
                                             const std::optional<at::Tensor>& bias,
                                             const Parameters& parameters);

  // An input of the CPU; checked as conv_pool2d does. No derivatives.
  virtual at::Tensor run(const at::Tensor& input) const = 0;

  // Sizes, dtype and strides that run() would give, for symbolic sizes too.
  at::Tensor meta(const at::Tensor& input) const;

  std::string description() const;

 protected:
  PackedConv(const at::Tensor& weight,
             const std::optional<at::Tensor>& bias,
             const Parameters& parameters);

  const Parameters parameters_;
  const at::MemoryFormat weight_format_;  // of the original
  const at::Tensor weight_;               // dense, and nobody else's
  const std::optional<at::Tensor> bias_;
};

// For tests: how often the process has packed weights, for whichever op, and how
// many of these packings still exist.
CONVSHIP_API kernels::conv2d::Packings packings();

// The ops, typed. A call that needs nothing from the dispatcher does not go
// through it.
CONVSHIP_API c10::intrusive_ptr<PackedConv> conv_pool2d_prepack(
    const at::Tensor& weight,
    const std::optional<at::Tensor>& bias,
    const ConvPool2dOptions& options);
CONVSHIP_API at::Tensor conv_pool2d_packed(const at::Tensor& input,
                                           const c10::intrusive_ptr<PackedConv>& packed);

}  // namespace convship::ops
