// Packed weights for compiled networks: native code that hands conv_pool2d its
// constants anew with every call.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "convship/export.h"
#include "kernels/conv2d/convolution.h"
#include "ops/conv_pool2d.h"
#include "ops/packed_conv.h"

namespace convship::ops {

// Packs what of a network's constants conv_pool2d is called with, at the first
// such call, and keeps it. Found again by address, sizes and strides: compiled
// code may make other tensors of the same memory in every call. Weights that are
// computed on the way are no constants, and packed each time. Thread-safe.
class CONVSHIP_API ConstantWeights {
 public:
  // The constants' memory must outlive the object and keep its values.
  explicit ConstantWeights(const std::vector<at::Tensor>& constants);
  ~ConstantWeights();
  ConstantWeights(const ConstantWeights&) = delete;
  ConstantWeights& operator=(const ConstantWeights&) = delete;

  // While it lives, calls of this thread take their packed weights from there.
  class CONVSHIP_API Use {
   public:
    explicit Use(ConstantWeights& weights);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    ConstantWeights* outer_;
  };

  // conv_pool2d(input, weight, bias), or an undefined tensor where this thread
  // uses none, or the weights are none of the constants, or have no kernel.
  static at::Tensor run(const at::Tensor& input,
                        const at::Tensor& weight,
                        const std::optional<at::Tensor>& bias,
                        const Parameters& parameters);

 private:
  struct Entry {
    at::Tensor weight;  // as it was first seen: for its address, sizes and strides
    std::optional<at::Tensor> bias;
    Parameters parameters;
    kernels::conv2d::Accuracy accuracy;
    c10::intrusive_ptr<PackedConv> packed;
  };

  bool hold(const at::Tensor& tensor) const;
  // Null where weight or bias is no constant.
  c10::intrusive_ptr<PackedConv> get(const at::Tensor& weight,
                                     const std::optional<at::Tensor>& bias,
                                     const Parameters& parameters);

  std::vector<std::pair<std::uintptr_t, std::uintptr_t>> ranges_;  // of addresses
  std::mutex mutex_;
  std::vector<Entry> entries_;
};

}  // namespace convship::ops
