// conv_pool2d behind the dispatcher: the one place for its checks and output
// shape (CPU, Meta and all others speak alike), and how its layers call each
// other.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymBool.h>
#include <c10/core/SymInt.h>
#include <c10/util/Exception.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "convship/ops.h"
#include "kernels/conv2d/geometry.h"

namespace convship::ops {

using kernels::conv2d::Activation;

enum class Accuracy { standard, direct, fast };

// The arguments that are not tensors, in range each by itself.
struct Parameters {
  Pair stride;
  Pair padding;
  Pair dilation;
  int64_t groups;
  Activation activation;
  Pair pool_size;
  Pair pool_stride;
  Pair pool_padding;
  bool ceil_mode;
  Accuracy accuracy;

  // Throws c10::ValueError. Lists may hold one number for both dimensions.
  static Parameters check(c10::IntArrayRef stride,
                          c10::IntArrayRef padding,
                          c10::IntArrayRef dilation,
                          int64_t groups,
                          std::string_view activation,
                          c10::IntArrayRef pool_size,
                          at::OptionalIntArrayRef pool_stride,
                          c10::IntArrayRef pool_padding,
                          bool ceil_mode,
                          std::string_view accuracy);
  static Parameters check(const ConvPool2dOptions& options);

  bool operator==(const Parameters&) const = default;
};

// Sizes as numbers (int64_t) or as expressions of a traced program (SymInt).
template <typename Int>
struct Shape {
  bool batched;  // false: one image [C, H, W]
  Int n;
  Int c_in;
  std::array<Int, 2> image;
  Int c_out;
  std::array<Int, 2> kernel;
  std::array<Int, 2> conv;
  std::array<Int, 2> pooled;

  std::vector<Int> output() const {
    if (batched) return {n, c_out, pooled[0], pooled[1]};
    return {c_out, pooled[0], pooled[1]};
  }
};

// What of check_shape does not need an input.
template <typename Int>
void check_weight(const Parameters& parameters,
                  c10::ArrayRef<Int> weight,
                  std::optional<c10::ArrayRef<Int>> bias);

// Throws c10::ValueError where the tensors' sizes do not fit each other or the
// parameters. Instantiated for int64_t and c10::SymInt.
template <typename Int>
Shape<Int> check_shape(const Parameters& parameters,
                       c10::ArrayRef<Int> input,
                       c10::ArrayRef<Int> weight,
                       std::optional<c10::ArrayRef<Int>> bias);

// Throws c10::TypeError unless all have one dtype, c10::ValueError unless all
// are on one device. `first`: what messages call the first tensor.
void check_types(const at::Tensor& input,
                 const at::Tensor& weight,
                 const std::optional<at::Tensor>& bias,
                 const char* first = "input");

// The memory format in which max_pool2d(act(conv2d(input, weight))) comes out,
// for tensors that suggest these.
template <typename Int>
at::MemoryFormat output_format(at::MemoryFormat input,
                               at::MemoryFormat weight,
                               const Parameters& parameters,
                               const Shape<Int>& shape);

// Whether the kernels serve this call; all others run unfused.
bool has_kernel(const at::Tensor& input, const at::Tensor& weight, const Parameters& parameters);

// uint8 where that holds every tap of a window, else int32.
at::ScalarType index_type(const Pair& pool_size);

// What the forward pass leaves for the backward one.
struct Winners {
  std::optional<at::Tensor> output;  // where activation was relu
  at::Tensor index;
};

// Of input, weight and bias.
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// From LibTorch's ops and _pool_route: differentiable, for any call.
Gradients differentiable_gradients(const at::Tensor& grad,
                                   const Winners& winners,
                                   const at::Tensor& input,
                                   const at::Tensor& weight,
                                   const Parameters& parameters,
                                   std::array<bool, 3> wanted);

// Whether _conv_pool2d_backward has, or for symbolic sizes may have, a kernel
// that is worth it.
bool has_direct_gradients(const at::Tensor& input,
                          const at::Tensor& weight,
                          const at::Tensor& index,
                          const Parameters& parameters);

// max_pool2d(act(conv2d(...))) from LibTorch's ops; differentiable.
at::Tensor unfused(const at::Tensor& input,
                   const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias,
                   const Parameters& parameters);

// The ops through the dispatcher, from whichever layer calls.
at::Tensor dispatch_conv_pool2d(const at::Tensor& input,
                                const at::Tensor& weight,
                                const std::optional<at::Tensor>& bias,
                                const Parameters& parameters);
std::tuple<at::Tensor, at::Tensor> dispatch_conv_pool2d_with_index(
    const at::Tensor& input,
    const at::Tensor& weight,
    const std::optional<at::Tensor>& bias,
    const Parameters& parameters);
Gradients dispatch_conv_pool2d_backward(const at::Tensor& grad,
                                        const Winners& winners,
                                        const at::Tensor& input,
                                        const at::Tensor& weight,
                                        const Parameters& parameters,
                                        std::array<bool, 3> wanted);
at::Tensor dispatch_pool_route(const at::Tensor& pooled,
                               const at::Tensor& window_index,
                               c10::SymIntArrayRef conv_size,
                               const Pair& pool_size,
                               const Pair& pool_stride,
                               const Pair& pool_padding);
at::Tensor dispatch_pool_gather(const at::Tensor& conv,
                                const at::Tensor& window_index,
                                const Pair& pool_size,
                                const Pair& pool_stride,
                                const Pair& pool_padding);

// Gives `implementation(input, weight, bias, parameters)` the arguments of the
// schema, which are written out here and nowhere else.
template <auto implementation>
auto boundary(const at::Tensor& input,
              const at::Tensor& weight,
              const std::optional<at::Tensor>& bias,
              c10::IntArrayRef stride,
              c10::IntArrayRef padding,
              c10::IntArrayRef dilation,
              int64_t groups,
              std::string_view activation,
              c10::IntArrayRef pool_size,
              at::OptionalIntArrayRef pool_stride,
              c10::IntArrayRef pool_padding,
              bool ceil_mode,
              std::string_view accuracy) {
  return implementation(input, weight, bias,
                        Parameters::check(stride, padding, dilation, groups, activation, pool_size,
                                          pool_stride, pool_padding, ceil_mode, accuracy));
}

}  // namespace convship::ops
