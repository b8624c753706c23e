// Which node becomes which layer.
#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "ops/kernel_call.h"
#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using kernels::conv2d::Activation;
using plan::Pair;
using torch::jit::Node;
using torch::jit::Value;

namespace {

// Of an operator's overload that takes the tensor for its result.
bool writes_elsewhere(const Node* node) {
  const c10::FunctionSchema* schema = node->maybeSchema();
  return schema && std::any_of(schema->arguments().begin(), schema->arguments().end(),
                               [](const c10::Argument& argument) {
                                 return argument.is_out() || argument.name() == "out";
                               });
}

}  // namespace

bool Part::translate(Node* node) {
  // In a loop, what was known of them in the round before.
  for (const Value* output : node->outputs()) {
    facts_.forget(output);
    tensors_.erase(output);
  }
  if (writes_elsewhere(node)) return false;
  const std::string_view kind = node->kind().toQualString();
  if (!node->inputs().empty() && is_table(node->input(0)) && compute_table(node)) return true;
  if (kind == "aten::conv2d" || kind == "aten::conv1d") return convolution(node, 6, false);
  if (kind == "aten::convolution" || kind == "aten::_convolution") {
    return convolution(node, 8, true);
  }
  if (kind == "aten::conv_transpose2d") return transposed_convolution(node, 5, 6, 7);
  if (kind == "aten::_convolution_mode") return convolution(node, 6, false);
  if (kind == "convship::conv_pool2d") return conv_pool2d(node);
  if (kind == "aten::linear") return linear(node);
  if (const auto done = translate_activation(node, kind)) return *done;
  if (kind == "aten::glu") return glu(node);
  if (kind == "aten::to") return convert(node);
  if (kind == "aten::type_as") return arranged(node->input(1)) && identity(node, 0);
  if (kind == "aten::fake_quantize_per_tensor_affine") return fake_quantize(node);
  if (kind == "aten::max_pool2d") return max_pool(node, false);
  if (kind == "aten::max_pool1d") return max_pool(node, true);
  if (kind == "aten::avg_pool2d") return average_pool(node, false);
  if (kind == "aten::avg_pool1d") return average_pool(node, true);
  if (kind == "aten::adaptive_avg_pool2d") return adaptive_pool(node, plan::Reduction::mean, false);
  if (kind == "aten::adaptive_avg_pool1d") return adaptive_pool(node, plan::Reduction::mean, true);
  if (kind == "aten::adaptive_max_pool2d")
    return adaptive_pool(node, plan::Reduction::maximum, false);
  if (kind == "aten::adaptive_max_pool1d")
    return adaptive_pool(node, plan::Reduction::maximum, true);
  if (kind == "aten::mean") return reduce(node, plan::Reduction::mean);
  if (kind == "aten::sum") return reduce(node, plan::Reduction::sum);
  if (kind == "aten::var") return variance(node, false);
  if (kind == "aten::std") return variance(node, true);
  if (kind == "aten::maximum" || (kind == "aten::max" && node->inputs().size() == 2)) {
    return combine(node, How::maximum, false);
  }
  if (kind == "aten::minimum" || (kind == "aten::min" && node->inputs().size() == 2)) {
    return combine(node, How::minimum, false);
  }
  if (kind == "aten::amax" || kind == "aten::max") return reduce(node, plan::Reduction::maximum);
  if (kind == "aten::flatten") return flatten(node);
  if (kind == "aten::select") return select_one(node);
  if (kind == "aten::unbind") return unbind(node);
  if (kind == "aten::expand") return expand(node);
  if (kind == "aten::unsqueeze") return unsqueeze(node);
  if (kind == "aten::squeeze") return squeeze(node);
  if (kind == "aten::expand_as") return expand_as(node);
  if (kind == "aten::unflatten") return unflatten(node);
  if (kind == "aten::view" || kind == "aten::reshape") return view(node);
  if (kind == "aten::reshape_as" || kind == "aten::view_as") return view_as(node);
  if (kind == "aten::upsample_nearest2d") return upsample(node, false);
  if (kind == "aten::upsample_bilinear2d") return upsample(node, true);
  if (kind == "aten::pad" || kind == "aten::constant_pad_nd" || kind == "aten::reflection_pad2d" ||
      kind == "aten::replication_pad2d") {
    return pad(node);
  }
  if (kind == "aten::pixel_shuffle") return pixel_shuffle(node);
  if (kind == "aten::pixel_unshuffle") return pixel_unshuffle(node);
  if (kind == "aten::add" && node->inputs().size() == 2) return join_lists(node);
  if (kind == "aten::add") return combine(node, How::add, false);
  if (kind == "aten::add_") return combine(node, How::add, true);
  if (kind == "aten::sub") return combine(node, How::subtract, false);
  if (kind == "aten::sub_") return combine(node, How::subtract, true);
  if (kind == "aten::mul") return combine(node, How::multiply, false);
  if (kind == "aten::mul_") return combine(node, How::multiply, true);
  if (kind == "aten::div") return combine(node, How::divide, false);
  if (kind == "aten::div_") return combine(node, How::divide, true);
  if (kind == "aten::addcmul") return add_product(node);
  if (kind == "aten::rsub") return subtract_from(node);
  if (kind == "aten::neg") {
    return scale_by_number(node, node->input(0), -1, -0.0, false) || compute(node);
  }
  if (kind == "aten::cat") return concatenate(node) || compute_table(node);
  if (kind == "aten::stack") return stack(node) || compute_table(node);
  if (kind == "aten::arange") return arange(node);
  if (kind == "aten::meshgrid") return compute_table(node);
  if (kind == "aten::append") return append(node);
  if (kind == "aten::batch_norm") return batch_norm(node);
  if (kind == "aten::layer_norm") return layer_norm(node);
  if (kind == "aten::group_norm") return group_norm(node);
  if (kind == "aten::instance_norm") return instance_norm(node);
  if (kind == "aten::softmax") return softmax(node, false);
  if (kind == "aten::log_softmax") return softmax(node, true);
  if (kind == "aten::dropout" || kind == "aten::dropout_" || kind == "aten::feature_dropout") {
    return identity(node, 2);
  }
  if (kind == "aten::contiguous") return contiguous(node);
  if (kind == "aten::transpose" || kind == "aten::swapaxes" || kind == "aten::swapdims") {
    return transpose(node, constant_int(node->input(1)), constant_int(node->input(2)));
  }
  if (kind == "aten::mT") return transpose(node, -2, -1);
  if (kind == "aten::permute") return permute(node);
  if (kind == "aten::channel_shuffle" || kind == "aten::native_channel_shuffle") {
    return channel_shuffle(node);
  }
  if (kind == "aten::chunk") return chunk(node);
  if (kind == "aten::split" || kind == "aten::split_with_sizes") return split(node);
  if (kind == "aten::slice") return slice(node);
  if (kind == "prim::ListUnpack") return unpack(node);
  if (kind == "aten::__getitem__") return item(node);
  if (kind == "prim::NumToTensor") return pass_on(node);
  if (kind == "aten::size") return size(node);
  if (kind == "aten::len" || kind == "aten::dim") return length(node);
  if (kind == "prim::ListConstruct") return list(node);
  if (kind == "aten::dict") return dictionary(node);
  if (kind == "aten::_set_item") return set_item(node);
  if (kind == "aten::list") return join_lists(node);
  if (kind == "aten::__is__") return is(node, false);
  if (kind == "aten::__isnot__") return is(node, true);
  if (kind == "prim::TupleConstruct" || kind == "prim::TupleUnpack" || kind == "prim::TupleIndex") {
    return tuple(node);
  }
  if (kind == "aten::matmul" || kind == "aten::bmm") return matmul(node);
  if (kind == "aten::norm" || kind == "aten::linalg_vector_norm") return norm(node);
  if (kind == "aten::clamp_min") return clamp_min(node);
  if (kind == "aten::new_zeros") return new_zeros(node);
  if (kind == "aten::roll") return roll(node);
  if (kind == "aten::copy") return join_lists(node);
  if (kind == "aten::einsum") return einsum(node);
  if (kind == "aten::scaled_dot_product_attention") return scaled_dot_product_attention(node);
  if (kind == "aten::_native_multi_head_attention") return native_multi_head_attention(node);
  if (kind == "aten::format") return message(node);
  if (kind == "aten::is_autocast_enabled" || kind == "aten::is_grad_enabled") {
    return learn(node->output(), Formula(c10::IValue(false)));
  }
  if (kind == "prim::dtype" || kind == "prim::device" || kind == "prim::layout" ||
      kind == "prim::requires_grad" || kind == "prim::is_nested") {
    return property(node, kind);
  }
  if (kind == "prim::If") return branch(node);
  if (kind == "prim::Loop") return loop(node);
  if (kind == "prim::unchecked_cast") return alias(node->output(), node->input(0));
  if (kind == "prim::Uninitialized") return learn(node->output(), Formula());
  return compute(node);
}

namespace {

struct Padding {
  Pair before;
  Pair more;  // below and right
};

// Numbers, "valid", or "same", of which what is odd comes below and right. reach: from the
// first tap to the last.
std::optional<Padding> padding_of(const Value* value, bool row, Pair stride, Pair reach) {
  if (const auto pair = constant_pair(value, row, 0)) return Padding{*pair, {0, 0}};
  const auto mode = constant_string(value);
  if (mode == "valid") return Padding{{0, 0}, {0, 0}};
  if (mode != "same" || stride.h != 1 || stride.w != 1) return {};
  return Padding{{reach.h / 2, reach.w / 2}, {reach.h % 2, reach.w % 2}};
}

}  // namespace

// input, weight, bias, stride, padding, dilation, [transposed, output padding,]
// groups
bool Part::convolution(Node* node, std::size_t groups, bool may_transpose) {
  if (node->inputs().size() <= groups) return false;
  auto weight = constant_weight(node->input(1), 3);
  const bool row = weight.has_value();
  weight = row ? weight->unsqueeze(2) : constant_weight(node->input(1), 4);
  const auto bias = constant_weight(node->input(2), 1);
  const auto stride = constant_pair(node->input(3), row, 1);
  const auto dilation = constant_pair(node->input(5), row, 1);
  const auto group_count = constant_int(node->input(groups));
  if (may_transpose && constant_int(node->input(6)) == 1) {
    return transposed_convolution(node, 7, 8, 5);
  }
  if (!weight || (!bias && !is_none(node->input(2))) || !is_between(stride, 1) ||
      !is_between(dilation, 1) || !group_count || *group_count < 1 ||
      weight->size(0) % *group_count != 0) {
    return false;
  }
  if (may_transpose && constant_int(node->input(6)) != 0) return false;
  const Pair reach{dilation->h * (weight->size(2) - 1), dilation->w * (weight->size(3) - 1)};
  const auto padding = padding_of(node->input(4), row, *stride, reach);
  if (!padding || !is_between(padding->before, 0)) return false;
  const auto x = tensor(node->input(0), row ? 3 : 4);
  if (!x) return false;
  const Multiplied what = multiplied(*x, *weight);
  plan::Convolve layer = convolve(*weight, bias, *group_count, what.rounding);
  layer.stride = *stride;
  layer.padding = padding->before;
  layer.more_padding = padding->more;
  layer.dilation = *dilation;
  finish(node, std::move(layer), {what.input}, row ? 3 : 4);
  return true;
}

plan::Convolve Part::convolve(const at::Tensor& weight,
                              const std::optional<at::Tensor>& bias,
                              int64_t groups,
                              const plan::Rounding& rounding) {
  plan::Convolve layer;
  layer.weight = weights_->keep(weight);
  layer.bias = bias ? weights_->keep(*bias) : nullptr;
  layer.shape = weight_shape(weight, groups);
  layer.weights = weights_->convolution(layer.weight, layer.bias, layer.shape, rounding);
  layer.stride = layer.dilation = {1, 1};
  layer.padding = {0, 0};
  return layer;
}

// input, weight, bias, stride, padding, dilation, groups, activation, pool
// size, pool stride, pool padding, ceil mode, accuracy
bool Part::conv_pool2d(Node* node) {
  const auto activation = constant_string(node->input(7));
  const auto accuracy = constant_string(node->input(12));
  const auto size = constant_pair(node->input(8)), padding = constant_pair(node->input(10));
  const auto stride = is_none(node->input(9)) ? size : constant_pair(node->input(9));
  const auto ceil_mode = constant_int(node->input(11));
  // The process's setting is that of the whole network.
  if (!activation || accuracy != "default" || !is_between(size, 1) || !is_between(stride, 1) ||
      !is_between(padding, 0) || !ceil_mode || !convolution(node, 6, false)) {
    return false;
  }
  auto& layer = std::get<plan::Convolve>(layers_.last());
  layer.activation = activation == "relu" ? Activation::relu : Activation::none;
  layer.pooled = true;
  layer.pool = {*size, *stride, *padding, *ceil_mode != 0};
  return true;
}

bool Part::linear(Node* node) {
  const auto weight = constant_weight(node->input(1), 2);
  const auto bias = constant_weight(node->input(2), 1);
  if (!weight || (!bias && !is_none(node->input(2)))) return false;
  const auto shown = arranged(node->input(0));
  const bool rows = shown && shown->rank() == 2 && is_one_for_each_image(*shown);
  if (shown && !rows) {
    if (shown->rank() < 2) return false;
    const auto x = with_channels_at(*shown, shown->rank() - 1, weight->size(1));
    if (!x || layers_.channels(x->value) != weight->size(1)) return false;
    show(node->output(), pointwise(*x, *weight, bias));
    return true;
  }
  const auto x = tensor(node->input(0), 2);
  if (!x) return false;
  plan::Linear layer{};
  layer.weight = weights_->keep(*weight);
  layer.bias = bias ? weights_->keep(*bias) : nullptr;
  layer.in = weight->size(1);
  layer.out = weight->size(0);
  const Multiplied what = multiplied(*x, *weight);
  if (what.rounding) {
    layer.rounded = weights_->rounded(layer.weight, layer.out, layer.in, what.rounding);
  }
  finish(node, std::move(layer), {what.input}, 2);
  return true;
}

// input, weight, bias, running mean, running variance, training, momentum, eps
bool Part::batch_norm(Node* node) {
  const auto mean = constant_weight(node->input(3), 1), var = constant_weight(node->input(4), 1);
  const auto weight = constant_weight(node->input(1), 1), bias = constant_weight(node->input(2), 1);
  const auto training = constant_int(node->input(5));
  const auto eps = constant_number(node->input(7));
  if (!mean || !var || (!weight && !is_none(node->input(1))) ||
      (!bias && !is_none(node->input(2))) || training != 0 || !eps || !arranged(node->input(0))) {
    return false;
  }
  const auto shown = arranged(node->input(0));
  // Otherwise as images, where that can be had.
  const bool moves = shown->rank() < 2 || !shows_channels(shown->dimensions[1], shown->value);
  if (moves && !inner(node->input(0), static_cast<int64_t>(shown->rank()))) return false;
  const auto channels = static_cast<std::size_t>(mean->numel());
  auto scale = std::make_shared<std::vector<float>>(channels);
  auto shift = std::make_shared<std::vector<float>>(channels);
  for (std::size_t c = 0; c < channels; ++c) {
    const double inverse = 1 / std::sqrt(var->const_data_ptr<float>()[c] + *eps);
    const double factor = weight ? weight->const_data_ptr<float>()[c] * inverse : inverse;
    (*scale)[c] = static_cast<float>(factor);
    (*shift)[c] = static_cast<float>((bias ? bias->const_data_ptr<float>()[c] : 0.0) -
                                     mean->const_data_ptr<float>()[c] * factor);
  }
  return finish_each(node, node->input(0), plan::Affine{std::move(scale), std::move(shift)}, false);
}

// input, dimension, dtype
bool Part::softmax(Node* node, bool logarithm) {
  const auto over = constant_int(node->input(1));
  const auto dtype = constant_int(node->input(2));
  const bool single = is_none(node->input(2)) || dtype == static_cast<int64_t>(at::kFloat);
  if (!single || !over) return false;
  if (const auto* scores = facts_.find<Scores>(node->input(0))) {
    if (logarithm || scores->normal || place_of(over, scores->q.rank()) != scores->q.rank() - 1)
      return false;
    Scores normal = *scores;
    normal.normal = true;
    facts_.learn(node->output(), std::move(normal));
    return true;
  }
  const auto x = arranged(node->input(0));
  const auto d = x ? place_of(over, x->rank()) : std::nullopt;
  if (!d) return false;
  if (!shows_channels(x->dimensions[*d], x->value)) {
    return !logarithm && softmax_of_pieces(node, *x, *d);
  }
  finish_like(node, node->input(0), plan::Softmax{logarithm}, {x->value});
  return true;
}

// training: the input that must be false, 0 where there is none.
bool Part::identity(Node* node, std::size_t training) {
  if (training > 0 && constant_int(node->input(training)) != 0) return false;
  if (facts_.find<Arrangement>(node->input(0)) || facts_.find<Scores>(node->input(0)))
    return pass_on(node);
  if (!inside(node->input(0))) return false;
  const plan::Value x = tensors_.at(node->input(0));
  bind(node->output(), x, layers_.dimensions(x));
  return true;
}

}  // namespace convship::ops::lowering
