// Matrices as images of one pixel or sequences, and back: what attention to channels does
// between a pool and a product.
#include <algorithm>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

plan::Value Part::matrix_of(plan::Value images) {
  const plan::Value matrix = push(plan::Flatten{}, {images});
  dimensions_[matrix] = 2;
  base_[matrix] = images;
  shown_.insert(images);
  return matrix;
}

bool Part::show_column(const Value* value, plan::Value matrix) {
  known_[value] = Column{matrix};
  shown_.insert(matrix);
  return true;
}

// Of a matrix, twice: to images of one pixel.
bool Part::unsqueeze(Node* node) {
  const auto at = number(node->input(1));
  const Value* x = node->input(0);
  if (const auto* column = known<Column>(x)) {
    return (at == -1 || at == 3) && unflatten(node, column->value, {1, 1}, 4);
  }
  if (!inside(x) || dimensions_.at(tensors_.at(x)) != 2) return false;
  const plan::Value matrix = tensors_.at(x);
  if (at == -1 || at == 2) return show_column(node->output(), matrix);
  const auto features = channels(matrix);
  return (at == 1 || at == -2) && features && unflatten(node, matrix, {1, *features}, 3);
}

// Of what has one pixel.
bool Part::squeeze(Node* node) {
  if (node->inputs().size() != 2) return false;
  auto over = constant_ints(node->input(1));
  const Value* x = node->input(0);
  if (!over) return false;
  if (const auto* column = known<Column>(x)) {
    if (*over != std::vector<int64_t>{-1} && *over != std::vector<int64_t>{2}) return false;
    bind(node->output(), column->value, 2);
    return true;
  }
  if (!inside(x) || !has_one_pixel(tensors_.at(x))) return false;
  const plan::Value images = tensors_.at(x);
  const int64_t dimensions = dimensions_.at(images);
  for (int64_t& d : *over) d += d < 0 ? dimensions : 0;
  std::sort(over->begin(), over->end());
  const bool one = over->size() == 1 && over->front() >= 2 && over->front() < dimensions;
  const bool both = *over == std::vector<int64_t>{2, 3} && dimensions == 4;
  if (both || (one && dimensions == 3)) {
    bind(node->output(), matrix_of(images), 2);
    return true;
  }
  return one && dimensions == 4 && show_column(node->output(), matrix_of(images));
}

// [N, F, 1] to [N, 1, F], and back.
bool Part::transpose_column(Node* node) {
  const Value* x = node->input(0);
  if (const auto* column = known<Column>(x)) {
    const auto features = channels(column->value);
    return features && unflatten(node, column->value, {1, *features}, 3);
  }
  if (!inside(x) || dimensions_.at(tensors_.at(x)) != 3 || channels(tensors_.at(x)) != 1) {
    return false;
  }
  return show_column(node->output(), matrix_of(tensors_.at(x)));
}

bool Part::unflatten(Node* node, plan::Value matrix, plan::Pair image, int64_t dimensions) {
  finish(node, plan::Unflatten{image}, {matrix}, dimensions);
  base_[tensors_.at(node->output())] = matrix;
  return true;
}

// input, dimension, sizes: of a matrix, to [N, C, H, W].
bool Part::unflatten(Node* node) {
  const auto at = number(node->input(1));
  const auto sizes = numbers(node->input(2));
  const Value* x = node->input(0);
  if (!inside(x) || dimensions_.at(tensors_.at(x)) != 2 || (at != 1 && at != -1) || !sizes ||
      sizes->size() != 3) {
    return false;
  }
  return to_images(node, tensors_.at(x), *sizes);
}

// sizes: of channels, rows and columns, one of which may be -1.
bool Part::to_images(Node* node, plan::Value matrix, const Numbers& sizes) {
  const auto features = channels(matrix);
  if (!features) return false;
  int64_t sides[3], known = 1, unknown = 0;
  for (int i = 0; i < 3; ++i) {
    const auto side = sizes[i].integer();
    if (!side || *side == 0 || *side < -1 || *side > *features) return false;
    sides[i] = *side;
    unknown += *side == -1;
    if (*side > 0 && (known *= *side) > *features) return false;
  }
  if (unknown > 1 || *features % known != 0 || (unknown == 0 && known != *features)) return false;
  for (int64_t& side : sides) side = side == -1 ? *features / known : side;
  return unflatten(node, matrix, {sides[1], sides[2]}, 4);
}

std::optional<plan::Pair> Part::image(plan::Value value) const {
  while (value >= 0) {
    const plan::Layer& layer = layers_[value].layer;
    if (const auto* pool = std::get_if<plan::AdaptivePool>(&layer)) return pool->size;
    if (const auto* unflatten = std::get_if<plan::Unflatten>(&layer)) return unflatten->image;
    const auto* conv = std::get_if<plan::Convolve>(&layer);
    const auto keeps = [](int64_t kernel, int64_t stride, int64_t dilation, int64_t padding) {
      return stride == 1 && padding == dilation * (kernel - 1);
    };
    const bool same = conv && !conv->pooled &&
                      keeps(conv->shape.kernel.h, conv->stride.h, conv->dilation.h,
                            2 * conv->padding.h + conv->more_padding.h) &&
                      keeps(conv->shape.kernel.w, conv->stride.w, conv->dilation.w,
                            2 * conv->padding.w + conv->more_padding.w);
    if (!same && !std::holds_alternative<plan::Activate>(layer)) return {};
    value = layers_[value].inputs[0];
  }
  return {};
}

bool Part::has_one_pixel(plan::Value value) const {
  const auto size = image(value);
  return size && size->h == 1 && size->w == 1;
}

// A number for each channel, which elementwise layers spread over the image by themselves.
bool Part::expand(Node* node) {
  if (!inside(node->input(0)) || !inside(node->input(1))) return false;
  // The other operand must be the image that it is spread over: then both give the same.
  const plan::Value x = tensors_.at(node->input(0)), like = tensors_.at(node->input(1));
  const auto& uses = node->output()->uses();
  const bool same = std::all_of(uses.begin(), uses.end(), [&](const torch::jit::Use& use) {
    if (use.user->kind() != c10::aten::mul && use.user->kind() != c10::aten::add) return false;
    const Value* other = use.user->input(1 - use.offset);
    return use.offset < 2 && inside(other) && tensors_.at(other) == like;
  });
  const auto count = channels(x);
  return has_one_pixel(x) && count && count == channels(like) && same && identity(node, 0);
}

}  // namespace convship::ops::lowering
