// The ops as typed C++ calls, for programs that already use LibTorch.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "convship/export.h"

namespace convship::ops {

// Height, then width.
using Pair = std::array<std::int64_t, 2>;

struct ConvPool2dOptions {
  Pair stride{1, 1};
  Pair padding{0, 0};
  Pair dilation{1, 1};
  std::int64_t groups = 1;
  std::string_view activation = "relu";  // or "none"
  Pair pool_size{2, 2};
  std::optional<Pair> pool_stride{};  // pool_size where absent
  Pair pool_padding{0, 0};
  bool ceil_mode = false;
  std::string_view accuracy = "default";  // or "direct", "fast"
};

// max_pool2d(act(conv2d(input, weight, bias))) in one pass.
//
// input [N, C_in, H, W] or [C_in, H, W], weight [C_out, C_in / groups, K_h, K_w],
// bias [C_out] or absent; any strides. Goes through LibTorch's dispatcher, so
// autograd, autocast and tracing work as for LibTorch's own ops. Throws
// c10::ValueError, c10::TypeError or c10::NotImplementedError. Thread-safe.
CONVSHIP_API at::Tensor conv_pool2d(const at::Tensor& input,
                                    const at::Tensor& weight,
                                    const std::optional<at::Tensor>& bias = {},
                                    const ConvPool2dOptions& options = {});

// Makes the ops known to TorchScript in a program that calls nothing else of
// this library: without a reference to it, linkers that are given --as-needed
// (many by default) leave the library out. Cheap, may be called repeatedly.
CONVSHIP_API void register_ops();

}  // namespace convship::ops
