// Dimensions that count through some of the channels, as of branches side by side: what a
// reduction or a softmax over them does to the pieces at each of their places.
#include <algorithm>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

// Without the dimension; nothing where there are more than branches a network has.
std::optional<std::vector<Arrangement>> Part::pieces_of(const Arrangement& x,
                                                        std::size_t dimension) {
  constexpr int64_t kMost = 16;
  const Axes& axes = x.dimensions[dimension];
  const auto number = count(axes);
  if (axes.empty() || !number || *number > kMost ||
      !std::all_of(axes.begin(), axes.end(), is_channel)) {
    return {};
  }
  std::vector<Arrangement> pieces;
  for (int64_t i = 0; i < *number; ++i) {
    auto piece = some_of_channels(x, dimension, {i, i + 1}, true);
    if (!piece) return {};
    pieces.push_back(*std::move(piece));
  }
  return pieces;
}

// Of a list of tensors.
std::optional<Pieces> Part::pieces_in(const Value* list) const {
  if (const auto* pieces = facts_.find<Pieces>(list)) return *pieces;
  const auto* tensors = facts_.find<Tensors>(list);
  if (!tensors) return {};
  Pieces pieces;
  for (const Value* each : *tensors) {
    const auto tensor = arranged(each);
    if (!tensor) return {};
    pieces.push_back(*tensor);
  }
  return pieces;
}

// What a layer of two operands makes of all of them, one after the other.
plan::Value Part::folded(const std::vector<Arrangement>& pieces, const plan::Layer& layer) {
  plan::Value all = pieces.front().value;
  for (std::size_t i = 1; i < pieces.size(); ++i) {
    all = layers_.add_like(all, layer, {all, pieces[i].value});
  }
  return all;
}

// Whether they count through as many channels in the same way.
bool Part::are_alike(const std::vector<Arrangement>& pieces) const {
  const Arrangement& first = pieces.front();
  const auto channels = layers_.channels(first.value);
  return channels && std::all_of(pieces.begin(), pieces.end(), [&](const Arrangement& piece) {
           return piece.dimensions == first.dimensions &&
                  layers_.channels(piece.value) == channels &&
                  layers_.dimensions(piece.value) == layers_.dimensions(first.value);
         });
}

// A new dimension that counts through them, which are alike.
Arrangement Part::stacked(const std::vector<Arrangement>& pieces, std::size_t dimension) {
  std::vector<plan::Value> inputs;
  for (const Arrangement& piece : pieces) inputs.push_back(piece.value);
  Arrangement all = pieces.front();
  const int64_t each = *layers_.channels(all.value);
  const auto number = static_cast<int64_t>(pieces.size());
  all.value = layers_.add_like(all.value, plan::Concatenate{}, std::move(inputs));
  const Axes among = number == 1 ? Axes{} : Axes{{Axis::Side::c, each, number}};
  all.dimensions = replaced(all.dimensions, dimension, dimension, {among});
  return all;
}

// A list of tensors, and where their dimension is to be.
bool Part::stack(Node* node) {
  const auto found = pieces_in(node->input(0));
  if (!found || found->empty()) return false;
  const Pieces& pieces = *found;
  const auto d = place_of(constant_int(node->input(1)), pieces.front().rank() + 1);
  if (!d || !are_alike(pieces)) return false;
  show(node->output(), stacked(pieces, *d));
  return true;
}

bool Part::reduce_pieces(Node* node, plan::Reduction reduction) {
  const auto x = arranged(node->input(0));
  const auto over = constant_ints(node->input(1));
  const auto kept = constant_int(node->input(2));
  if (!x || !over || over->size() != 1 || !kept) return false;
  const auto d = place_of(over->front(), x->rank());
  const auto pieces = d ? pieces_of(*x, *d) : std::nullopt;
  if (!pieces) return false;
  Arrangement all = pieces->front();
  const bool largest = reduction == plan::Reduction::maximum;
  all.value = folded(*pieces, largest ? plan::Layer(plan::Combine{How::maximum}) : plan::Add{});
  if (reduction == plan::Reduction::mean) {
    all.value = times(all.value, 1 / static_cast<double>(pieces->size()));
  }
  if (*kept != 0) all.dimensions = replaced(all.dimensions, *d, *d, {Axes{}});
  show(node->output(0), std::move(all));
  return true;
}

bool Part::softmax_of_pieces(Node* node, const Arrangement& x, std::size_t dimension) {
  auto pieces = pieces_of(x, dimension);
  if (!pieces) return false;
  const plan::Value largest = folded(*pieces, plan::Combine{How::maximum});
  for (Arrangement& piece : *pieces) {
    const plan::Value below =
        layers_.add_like(largest, plan::Combine{How::subtract}, {piece.value, largest});
    piece.value =
        layers_.add_like(below, plan::Activate{kernels::conv2d::Activation::exp}, {below});
  }
  const plan::Value sum = folded(*pieces, plan::Add{});
  for (Arrangement& piece : *pieces) {
    piece.value = layers_.add_like(sum, plan::Combine{How::divide}, {piece.value, sum});
  }
  show(node->output(), stacked(*pieces, dimension));
  return true;
}

}  // namespace convship::ops::lowering
