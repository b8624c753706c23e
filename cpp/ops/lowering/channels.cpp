// Channels taken apart, in a new order, and together again.
#include <algorithm>
#include <limits>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

namespace {

// Channel k * groups + g of the result is channel g * (count / groups) + k.
std::vector<int64_t> shuffled(int64_t count, int64_t groups) {
  std::vector<int64_t> from(count);
  for (int64_t k = 0; k < count; ++k) from[k] = k % groups * (count / groups) + k / groups;
  return from;
}

std::vector<int64_t> range(int64_t begin, int64_t end) {
  std::vector<int64_t> from;
  for (int64_t c = begin; c < end; ++c) from.push_back(c);
  return from;
}

// Where pieces of `size` channels end; the last may be smaller.
std::vector<int64_t> ends_every(int64_t size, int64_t count) {
  std::vector<int64_t> ends;
  for (int64_t end = size; end < count; end += size) ends.push_back(end);
  ends.push_back(count);
  return ends;
}

}  // namespace

std::pair<plan::Value, int64_t> Part::origin(plan::Value value, int64_t channel) const {
  while (value >= 0) {
    const plan::Instruction& i = layers_[value];
    if (const auto* select = std::get_if<plan::Select>(&i.layer)) {
      channel = (*select->from)[channel];
    } else if (!std::holds_alternative<plan::Concatenate>(i.layer)) {
      break;
    }
    std::size_t k = 0;
    for (; k + 1 < i.inputs.size() && channel >= *channels(i.inputs[k]); ++k) {
      channel -= *channels(i.inputs[k]);
    }
    value = i.inputs[k];
  }
  return {value, channel};
}

plan::Value Part::select(plan::Value value, std::vector<int64_t> from) {
  std::vector<plan::Value> inputs{value};
  if (!plan::is_run_of_blocks(from)) {
    // What was concatenated or selected before is read from where it was made,
    // so that what only passes through is copied once.
    inputs.clear();
    std::vector<int64_t> first;  // of each input's channels, in the concatenation
    int64_t count = 0;
    for (int64_t& channel : from) {
      const auto [source, there] = origin(value, channel);
      const auto found = std::find(inputs.begin(), inputs.end(), source);
      const auto k = static_cast<std::size_t>(found - inputs.begin());
      if (found == inputs.end()) {
        inputs.push_back(source);
        first.push_back(count);
        count += *channels(source);
      }
      channel = first[k] + there;
    }
  }
  const int64_t dimensions = dimensions_.at(value);
  const plan::Value result =
      push(plan::Select{std::make_shared<const std::vector<int64_t>>(std::move(from))},
           std::move(inputs));
  dimensions_[result] = dimensions;
  return result;
}

// As [N, groups, C / groups, H, W].
bool Part::group(Node* node, const Numbers& shape) {
  if (!inside(node->input(0))) return false;
  const plan::Value x = tensors_.at(node->input(0));
  const auto count = channels(x);
  const auto groups = shape[1].integer(), each = shape[2].integer();
  if (!count || !groups || !each || *groups < 1 || *count % *groups != 0 ||
      (*each != -1 && *each != *count / *groups) || !is_batch_and_image(shape, x)) {
    return false;
  }
  known_[node->output()] = Grouped{x, *groups, false};
  shown_.insert(x);
  return true;
}

// Back to [N, C, H, W]; or a matrix as images.
bool Part::ungroup(Node* node, const Numbers& shape) {
  const Value* from = node->input(0);
  if (inside(from) && dimensions_.at(tensors_.at(from)) != 4) {
    plan::Value x = tensors_.at(from);
    if (dimensions_.at(x) == 3) x = matrix_of(x);
    const bool rest = shape[0].integer() == -1;
    const Numbers sizes(shape.begin() + 1, shape.end());
    const bool two = rest && std::any_of(sizes.begin(), sizes.end(),
                                         [](const Formula& n) { return n.integer() == -1; });
    return !two && (rest || is_batch(shape[0], x)) && to_images(node, x, sizes);
  }
  const auto* grouped = known<Grouped>(node->input(0));
  if (!grouped) return false;
  const plan::Value x = grouped->value;
  const int64_t count = *channels(x);
  const auto together = shape[1].integer();
  if (!together || (*together != -1 && *together != count) || !is_batch_and_image(shape, x)) {
    return false;
  }
  if (!grouped->swapped) {
    bind(node->output(), x, 4);
  } else if (grouped->groups == 1 || grouped->groups == count) {
    return false;  // torch's result is a view then
  } else {
    bind(node->output(), select(x, shuffled(count, grouped->groups)), 4);
  }
  return true;
}

bool Part::is_batch_and_image(const Numbers& shape, plan::Value x) const {
  const auto is_side = [&](const Formula& n, int64_t dimension) {
    const Extent* side = n.extent();
    return side && side->value == x && side->dimension == dimension;
  };
  const std::size_t d = shape.size();
  return is_batch(shape[0], x) && is_side(shape[d - 2], 2) && is_side(shape[d - 1], 3);
}

// Of groups and the channels in them.
bool Part::transpose(Node* node) {
  const auto* grouped = known<Grouped>(node->input(0));
  const auto a = constant_int(node->input(1)), b = constant_int(node->input(2));
  if (!a || !b) return false;
  if (!grouped) {
    const auto of_three = [](int64_t d) { return d < 0 ? d + 3 : d; };
    return std::min(of_three(*a), of_three(*b)) == 1 && std::max(of_three(*a), of_three(*b)) == 2 &&
           transpose_column(node);
  }
  const int64_t first = *a < 0 ? *a + 5 : *a, second = *b < 0 ? *b + 5 : *b;
  if (std::min(first, second) != 1 || std::max(first, second) != 2 || grouped->swapped)
    return false;
  known_[node->output()] = Grouped{grouped->value, grouped->groups, true};
  return true;
}

bool Part::contiguous(Node* node) {
  if (known<Grouped>(node->input(0))) return pass_on(node);
  const auto format = constant_int(node->input(1));
  if (format != static_cast<int64_t>(at::MemoryFormat::Contiguous) || !identity(node, 0)) {
    return false;
  }
  // The same tensor or a copy, as the call's layout will have it: neither is written to.
  if (inside(node->input(0))) shown_.insert(tensors_.at(node->input(0)));
  return true;
}

bool Part::channel_shuffle(Node* node) {
  const auto groups = constant_int(node->input(1));
  if (!inside(node->input(0)) || !groups || *groups < 1) return false;
  const plan::Value x = tensors_.at(node->input(0));
  const auto count = channels(x);
  if (!count || *count % *groups != 0 || dimensions_.at(x) != 4) return false;
  bind(node->output(), select(x, shuffled(*count, *groups)), 4);
  return true;
}

// The input's channels up to each of `ends`, as a list of views.
bool Part::cut(Node* node, const std::vector<int64_t>& ends) {
  const plan::Value x = tensors_.at(node->input(0));
  Pieces pieces;
  int64_t begin = 0;
  for (const int64_t end : ends) {
    pieces.push_back(select(x, range(begin, end)));
    base_[pieces.back()] = x;
    begin = end;
  }
  known_[node->output()] = std::move(pieces);
  return true;
}

std::optional<int64_t> Part::channels_to_cut(const Node* node, std::size_t dimension) const {
  const auto over = constant_int(node->input(dimension));
  if (!inside(node->input(0)) || !over) return {};
  const plan::Value x = tensors_.at(node->input(0));
  if (dimensions_.at(x) != 4 || (*over != 1 && *over != -3)) return {};
  return channels(x);
}

bool Part::chunk(Node* node) {
  const auto count = channels_to_cut(node, 2);
  const auto chunks = constant_int(node->input(1));
  if (!count || !chunks || *chunks < 1) return false;
  return cut(node, ends_every((*count + *chunks - 1) / *chunks, *count));
}

bool Part::split(Node* node) {
  const auto count = channels_to_cut(node, 2);
  const auto sizes = constant_ints(node->input(1));
  if (!count || !sizes || sizes->empty()) return false;
  if (const auto size = constant_int(node->input(1))) {
    return *size > 0 && cut(node, ends_every(*size, *count));
  }
  std::vector<int64_t> ends;
  int64_t end = 0;
  for (const int64_t size : *sizes) {
    if (size < 1) return false;
    ends.push_back(end += size);
  }
  return end == *count && cut(node, ends);
}

// input, dimension, begin, end, step
bool Part::slice(Node* node) {
  constexpr std::size_t kOfTensor = 5, kOfList = 4;  // inputs
  if (node->inputs().size() == kOfList) return slice_list(node);
  if (node->inputs().size() != kOfTensor || constant_int(node->input(4)) != 1) return false;
  const bool from_first = is_none(node->input(2)) || constant_int(node->input(2)) == 0;
  const bool to_last = is_none(node->input(3)) ||
                       constant_int(node->input(3)) == std::numeric_limits<int64_t>::max();
  if (from_first && to_last) {
    const auto over = constant_int(node->input(1));
    const auto value = elements(node->input(0));
    const int64_t dimensions = value ? dimensions_.at(*value) : 0;
    return over && *over >= -dimensions && *over < dimensions && identity(node, 0);
  }
  const auto count = channels_to_cut(node, 1);
  if (!count) return false;
  const auto kept = slice_of(node, 2, *count);
  if (!kept || kept->begin >= kept->end) return false;
  const plan::Value x = tensors_.at(node->input(0));
  bind(node->output(), select(x, range(kept->begin, kept->end)), 4);
  base_[tensors_.at(node->output())] = x;
  return true;
}

bool Part::concatenate(Node* node) {
  if (constant_int(node->input(1)) != 1) return false;
  if (const auto* pieces = known<Pieces>(node->input(0))) {
    const int64_t dimensions = dimensions_.at(pieces->front());
    const bool alike = std::all_of(pieces->begin(), pieces->end(), [&](plan::Value piece) {
      return dimensions_.at(piece) == dimensions;
    });
    if (alike) finish(node, plan::Concatenate{}, *pieces, dimensions);
    return alike;
  }
  const auto* list = known<Tensors>(node->input(0));
  if (!list || list->empty()) return false;
  const auto first = std::find_if(list->begin(), list->end(), [&](Value* v) { return inside(v); });
  if (first == list->end()) return false;
  const int64_t dimensions = dimensions_.at(tensors_.at(*first));
  std::vector<plan::Value> inputs;
  for (Value* value : *list) {
    const auto x = tensor(value, dimensions);
    if (!x) return false;
    inputs.push_back(*x);
  }
  finish(node, plan::Concatenate{}, std::move(inputs), dimensions);
  return true;
}

}  // namespace convship::ops::lowering
