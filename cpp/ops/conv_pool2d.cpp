#include "ops/conv_pool2d.h"

#include <c10/util/safe_numerics.h>

#include <algorithm>
#include <limits>
#include <string>

namespace convship::ops {
namespace {

// oneDNN, to which calls without a kernel go, counts in 32 bits.
constexpr int64_t kLargestArgument = std::numeric_limits<int32_t>::max();

int64_t check_number(const char* name, int64_t value, int64_t least) {
  TORCH_CHECK_VALUE(value >= least && value <= kLargestArgument, "conv_pool2d: ", name,
                    " must lie between ", least, " and ", kLargestArgument, ", got ", value);
  return value;
}

Pair check_pair(const char* name, c10::IntArrayRef values, int64_t least) {
  TORCH_CHECK_VALUE(values.size() == 1 || values.size() == 2, "conv_pool2d: ", name,
                    " must be one integer or a pair, got ", values.size(), " values");
  return {check_number(name, values.front(), least), check_number(name, values.back(), least)};
}

// Comparisons whose answer a traced program relies on: for expressions they
// become a guard or a check at run time.
bool at_least(int64_t a, int64_t b) { return a >= b; }
bool at_least(const c10::SymInt& a, const c10::SymInt& b) {
  return a.sym_ge(b).expect_true(__FILE__, __LINE__);
}
bool equal(int64_t a, int64_t b) { return a == b; }
bool equal(const c10::SymInt& a, const c10::SymInt& b) {
  return a.sym_eq(b).expect_true(__FILE__, __LINE__);
}

// Without a guard: an expression that is not known to be `b` counts as another.
bool is_known(int64_t a, int64_t b) { return a == b; }
bool is_known(const c10::SymInt& a, int64_t b) { return TORCH_GUARD_OR_FALSE(a.sym_eq(b)); }

int64_t least(int64_t a, int64_t b) { return std::min(a, b); }
c10::SymInt least(const c10::SymInt& a, const c10::SymInt& b) { return a.min(b); }

int64_t checked(bool overflow, int64_t value) {
  TORCH_CHECK_VALUE(!overflow, "conv_pool2d: the sizes overflow 64 bits");
  return value;
}
int64_t multiply(int64_t a, int64_t b) {
  int64_t result = 0;
  const bool overflow = c10::mul_overflows(a, b, &result);
  return checked(overflow, result);
}
int64_t add(int64_t a, int64_t b) {
  int64_t result = 0;
  const bool overflow = c10::add_overflows(a, b, &result);
  return checked(overflow, result);
}
// Expressions are not checked: their bounds would become constraints on the
// traced program, and no memory is allocated for them.
c10::SymInt multiply(const c10::SymInt& a, const c10::SymInt& b) { return a * b; }
c10::SymInt add(const c10::SymInt& a, const c10::SymInt& b) { return a + b; }

// Windows that fit, counted as conv2d does; below 1 where none does.
template <typename Int>
Int conv_extent(
    const Int& image, const Int& kernel, int64_t stride, int64_t padding, int64_t dilation) {
  const Int padded = add(image, Int(2 * padding));
  const Int reach = add(multiply(Int(dilation), kernel - 1), Int(1));
  if (!at_least(padded, reach)) return Int(0);
  return (padded - reach) / Int(stride) + 1;
}

// As max_pool2d counts: in ceil_mode a last window may hang over the edge, but
// must start inside the image or its left padding.
template <typename Int>
Int pool_extent(const Int& conv, int64_t size, int64_t stride, int64_t padding, bool ceil_mode) {
  const Int room = conv + 2 * padding - size;
  if (!ceil_mode) {
    if (!at_least(room, Int(0))) return Int(0);
    return room / Int(stride) + 1;
  }
  if (!at_least(room, Int(1 - stride))) return Int(0);
  return least((room + (stride - 1)) / Int(stride), (conv + (padding - 1)) / Int(stride)) + 1;
}

}  // namespace

Parameters Parameters::check(c10::IntArrayRef stride,
                             c10::IntArrayRef padding,
                             c10::IntArrayRef dilation,
                             int64_t groups,
                             std::string_view activation,
                             c10::IntArrayRef pool_size,
                             at::OptionalIntArrayRef pool_stride,
                             c10::IntArrayRef pool_padding,
                             bool ceil_mode,
                             std::string_view accuracy) {
  Parameters p{};
  p.stride = check_pair("stride", stride, 1);
  p.padding = check_pair("padding", padding, 0);
  p.dilation = check_pair("dilation", dilation, 1);
  p.groups = check_number("groups", groups, 1);
  TORCH_CHECK_VALUE(activation == "relu" || activation == "none",
                    "conv_pool2d: activation must be 'relu' or 'none', got '", activation, "'");
  p.activation = activation == "relu" ? Activation::relu : Activation::none;
  p.pool_size = check_pair("pool_size", pool_size, 1);
  p.pool_stride = pool_stride ? check_pair("pool_stride", *pool_stride, 1) : p.pool_size;
  p.pool_padding = check_pair("pool_padding", pool_padding, 0);
  for (size_t i = 0; i < 2; ++i) {
    TORCH_CHECK_VALUE(
        2 * p.pool_padding[i] <= p.pool_size[i],
        "conv_pool2d: pool_padding must be at most half of pool_size, got pool_padding ",
        c10::IntArrayRef(p.pool_padding), " and pool_size ", c10::IntArrayRef(p.pool_size));
  }
  p.ceil_mode = ceil_mode;
  TORCH_CHECK_VALUE(accuracy == "default" || accuracy == "direct" || accuracy == "fast",
                    "conv_pool2d: accuracy must be 'default', 'direct' or 'fast', got '", accuracy,
                    "'");
  p.accuracy = accuracy == "direct" ? Accuracy::direct
               : accuracy == "fast" ? Accuracy::fast
                                    : Accuracy::standard;
  return p;
}

Parameters Parameters::check(const ConvPool2dOptions& o) {
  const Pair pool_stride = o.pool_stride.value_or(o.pool_size);
  return check(o.stride, o.padding, o.dilation, o.groups, o.activation, o.pool_size,
               c10::IntArrayRef(pool_stride), o.pool_padding, o.ceil_mode, o.accuracy);
}

template <typename Int>
void check_weight(const Parameters& p,
                  c10::ArrayRef<Int> weight,
                  std::optional<c10::ArrayRef<Int>> bias) {
  TORCH_CHECK_VALUE(weight.size() == 4,
                    "conv_pool2d: weight must be [C_out, C_in/groups, K_h, K_w], got ",
                    weight.size(), " dimensions ", weight);
  for (const Int& size : weight) {
    TORCH_CHECK_VALUE(at_least(size, Int(1)), "conv_pool2d: weight must not be empty, got ",
                      weight);
  }
  TORCH_CHECK_VALUE(equal(weight[0] % Int(p.groups), Int(0)),
                    "conv_pool2d: C_out must be divisible by groups, got weight ", weight,
                    " and groups ", p.groups);
  TORCH_CHECK_VALUE(!bias || (bias->size() == 1 && equal((*bias)[0], weight[0])),
                    "conv_pool2d: bias must be [C_out], got ", *bias, " for weight ", weight);
}

template void check_weight(const Parameters&,
                           c10::ArrayRef<int64_t>,
                           std::optional<c10::ArrayRef<int64_t>>);

template <typename Int>
Shape<Int> check_shape(const Parameters& p,
                       c10::ArrayRef<Int> input,
                       c10::ArrayRef<Int> weight,
                       std::optional<c10::ArrayRef<Int>> bias) {
  TORCH_CHECK_VALUE(input.size() == 4 || input.size() == 3,
                    "conv_pool2d: input must be [N, C_in, H, W] or [C_in, H, W], got ",
                    input.size(), " dimensions ", input);
  const bool batched = input.size() == 4;
  const auto image = input.slice(batched ? 1 : 0);
  for (const Int& size : image) {
    TORCH_CHECK_VALUE(at_least(size, Int(1)),
                      "conv_pool2d: input may be empty in its batch dimension only, got ", input);
  }
  check_weight(p, weight, bias);
  TORCH_CHECK_VALUE(equal(multiply(weight[1], Int(p.groups)), image[0]),
                    "conv_pool2d: input must have weight.size(1) * groups channels, got input ",
                    input, ", weight ", weight, " and groups ", p.groups);

  Shape<Int> shape{batched,   batched ? input[0] : Int(1), image[0],         {image[1], image[2]},
                   weight[0], {weight[2], weight[3]},      {Int(0), Int(0)}, {Int(0), Int(0)}};
  for (size_t i = 0; i < 2; ++i) {
    shape.conv[i] =
        conv_extent(shape.image[i], shape.kernel[i], p.stride[i], p.padding[i], p.dilation[i]);
    TORCH_CHECK_VALUE(at_least(shape.conv[i], Int(1)),
                      "conv_pool2d: the kernel must fit into the padded input, got input ", input,
                      ", padding ", c10::IntArrayRef(p.padding), ", weight ", weight,
                      " and dilation ", c10::IntArrayRef(p.dilation));
    shape.pooled[i] = pool_extent(shape.conv[i], p.pool_size[i], p.pool_stride[i],
                                  p.pool_padding[i], p.ceil_mode);
    TORCH_CHECK_VALUE(
        at_least(shape.pooled[i], Int(1)),
        "conv_pool2d: the pooling window must fit into the padded conv result, got conv result ",
        c10::ArrayRef<Int>(shape.conv), ", pool_size ", c10::IntArrayRef(p.pool_size),
        " and pool_padding ", c10::IntArrayRef(p.pool_padding));
  }
  // Positions in the conv result are counted in 64 bits, 8 bytes a value.
  multiply(multiply(multiply(shape.n, shape.c_out), multiply(shape.conv[0], shape.conv[1])), 8);
  return shape;
}

template Shape<int64_t> check_shape(const Parameters&,
                                    c10::ArrayRef<int64_t>,
                                    c10::ArrayRef<int64_t>,
                                    std::optional<c10::ArrayRef<int64_t>>);
template Shape<c10::SymInt> check_shape(const Parameters&,
                                        c10::ArrayRef<c10::SymInt>,
                                        c10::ArrayRef<c10::SymInt>,
                                        std::optional<c10::ArrayRef<c10::SymInt>>);

void check_types(const at::Tensor& input,
                 const at::Tensor& weight,
                 const std::optional<at::Tensor>& bias,
                 const char* first) {
  const auto check = [&](const char* name, const at::Tensor& tensor) {
    TORCH_CHECK_TYPE(tensor.scalar_type() == input.scalar_type(), "conv_pool2d: ", name,
                     " must have the dtype of ", first, ", got ", tensor.scalar_type(), " and ",
                     first, " ", input.scalar_type());
    TORCH_CHECK_VALUE(tensor.device() == input.device(), "conv_pool2d: ", name,
                      " must be on the device of ", first, ", got ", tensor.device(), " and ",
                      first, " on ", input.device());
  };
  check("weight", weight);
  if (bias) check("bias", *bias);
}

template <typename Int>
at::MemoryFormat output_format(at::MemoryFormat input,
                               at::MemoryFormat weight,
                               const Parameters& p,
                               const Shape<Int>& shape) {
  constexpr auto kDense = at::MemoryFormat::Contiguous;
  // max_pool2d does not see the format in one image, nor in an empty batch.
  if (!shape.batched || is_known(shape.n, 0)) return kDense;
  // conv2d takes channels_last from either tensor.
  if (input != at::MemoryFormat::ChannelsLast && weight != at::MemoryFormat::ChannelsLast) {
    return kDense;
  }
  // relu takes a result that is dense both ways for an NCHW one.
  const bool both =
      is_known(shape.c_out, 1) || (is_known(shape.conv[0], 1) && is_known(shape.conv[1], 1));
  return p.activation == Activation::relu && both ? kDense : at::MemoryFormat::ChannelsLast;
}

template at::MemoryFormat output_format(at::MemoryFormat,
                                        at::MemoryFormat,
                                        const Parameters&,
                                        const Shape<int64_t>&);
template at::MemoryFormat output_format(at::MemoryFormat,
                                        at::MemoryFormat,
                                        const Parameters&,
                                        const Shape<c10::SymInt>&);

bool has_kernel(const at::Tensor& input, const at::Tensor& weight, const Parameters& p) {
  const bool dense = input.layout() == at::kStrided && weight.layout() == at::kStrided;
  const auto type = input.scalar_type();
  const bool known = type == at::kFloat || type == at::kDouble || type == at::kBFloat16;
  return input.device().is_cpu() && dense && known &&
         p.pool_size[0] <= std::numeric_limits<int32_t>::max() / p.pool_size[1];
}

at::ScalarType index_type(const Pair& pool_size) {
  return pool_size[0] * pool_size[1] <= 256 ? at::kByte : at::kInt;
}

}  // namespace convship::ops
