// What a graph computes about shapes, known before any size is: it needs no
// layer.
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

std::optional<Formula> Part::formula(const Value* value) const {
  if (const auto* found = known<Formula>(value)) return *found;
  if (known_.count(value)) return {};
  if (auto given = constant(value)) return Formula(*std::move(given));
  return {};
}

std::optional<int64_t> Part::number(const Value* value) const {
  if (known_.count(value)) {
    const auto found = formula(value);
    return found ? found->integer() : std::nullopt;
  }
  return constant_int(value);
}

std::optional<double> Part::real(const Value* value) const {
  const auto found = known<Formula>(value);
  return found ? found->real() : constant_number(value);
}

std::optional<at::Tensor> Part::tensor_of(const Value* value) const {
  const auto found = formula(value);
  if (!found || !found->constant() || !found->constant()->isTensor()) return {};
  return found->constant()->toTensor();
}

bool Part::is_nothing(const Value* value) const {
  const auto found = formula(value);
  return found && found->constant() && found->constant()->isNone();
}

std::optional<Part::Numbers> Part::numbers(const Value* value) const {
  if (const auto* list = known<Numbers>(value)) return *list;
  if (const auto* sizes = known<SizesOf>(value)) {
    Numbers all;
    for (std::size_t d = 0; d < sizes->tensor.rank(); ++d) {
      all.push_back(*extent(sizes->tensor, static_cast<int64_t>(d)));
    }
    return all;
  }
  const auto given = formula(value);
  const c10::IValue* list = given ? given->constant() : nullptr;
  if (!list || !(list->isIntList() || list->isDoubleList() || list->isBoolList())) return {};
  const auto elements = list->toList();
  Numbers all;
  for (std::size_t i = 0; i < elements.size(); ++i) all.emplace_back(elements.get(i));
  return all;
}

std::optional<int64_t> Part::channels(plan::Value value) const {
  if (value < 0) return {};
  const plan::Instruction& i = layers_[value];
  if (const auto* conv = std::get_if<plan::Convolve>(&i.layer)) return conv->shape.c_out;
  if (const auto* linear = std::get_if<plan::Linear>(&i.layer)) return linear->out;
  if (const auto* affine = std::get_if<plan::Affine>(&i.layer)) return affine->scale->size();
  if (const auto* norm = std::get_if<plan::Normalize>(&i.layer)) return norm->scale->size();
  if (const auto* conv = std::get_if<plan::TransposedConvolve>(&i.layer)) return conv->c_out;
  if (const auto* shuffle = std::get_if<plan::PixelShuffle>(&i.layer)) {
    const auto before = channels(i.inputs[0]);
    const int64_t pixels = shuffle->factor * shuffle->factor;
    return before ? std::optional(*before / pixels) : std::nullopt;
  }
  if (const auto* select = std::get_if<plan::Select>(&i.layer)) return select->from->size();
  if (std::holds_alternative<plan::AcrossChannels>(i.layer)) return 1;
  if (const auto* unflatten = std::get_if<plan::Unflatten>(&i.layer)) {
    const auto features = channels(i.inputs[0]);
    const int64_t pixels = unflatten->image.h * unflatten->image.w;
    return features ? std::optional(*features / pixels) : std::nullopt;
  }
  if (std::holds_alternative<plan::Add>(i.layer) ||
      std::holds_alternative<plan::Combine>(i.layer)) {
    const auto a = channels(i.inputs[0]), b = channels(i.inputs[1]);
    // One channel may be spread over those of the other, of which nothing is known.
    if (a && b) return std::max(*a, *b);
    const auto some = a ? a : b;
    return some && *some > 1 ? some : std::nullopt;
  }
  if (const auto* flatten = std::get_if<plan::Flatten>(&i.layer)) {
    if (flatten->features >= 0) return flatten->features;
    const auto count = channels(i.inputs[0]);
    const auto size = image(i.inputs[0]);
    return count && size ? std::optional(*count * size->h * size->w) : std::nullopt;
  }
  if (std::holds_alternative<plan::Attend>(i.layer)) return channels(i.inputs[2]);
  if (!std::holds_alternative<plan::Concatenate>(i.layer)) return channels(i.inputs[0]);
  int64_t sum = 0;
  for (const plan::Value input : i.inputs) {
    const auto some = channels(input);
    if (!some) return {};
    sum += *some;
  }
  return sum;
}

std::optional<plan::Pair> Part::image(plan::Value value) const {
  const plan::Pair known = sides(value);
  return known.h > 0 && known.w > 0 ? std::optional(known) : std::nullopt;
}

plan::Pair Part::sides(plan::Value value) const {
  plan::Pair known{0, 0};
  const auto learn = [&](plan::Pair more) {
    if (known.h == 0) known.h = more.h;
    if (known.w == 0) known.w = more.w;
    return known;
  };
  for (;; value = layers_[value].inputs[0]) {
    if (const auto found = sides_.find(value); found != sides_.end()) learn(found->second);
    if (value < 0) return known;
    const plan::Layer& layer = layers_[value].layer;
    if (const auto* pool = std::get_if<plan::AdaptivePool>(&layer)) return learn(pool->size);
    if (const auto* unflatten = std::get_if<plan::Unflatten>(&layer)) {
      return learn(unflatten->image);
    }
    if (const auto* add = std::get_if<plan::AddImage>(&layer)) return learn(add->image);
    if (const auto* reshape = std::get_if<plan::ReshapePixels>(&layer)) {
      const auto constant = [](const plan::Measure& m) { return m.rule ? 0 : m.constant; };
      return learn({constant(reshape->height), constant(reshape->width)});
    }
    const auto* conv = std::get_if<plan::Convolve>(&layer);
    const auto keeps = [](int64_t kernel, int64_t stride, int64_t dilation, int64_t padding) {
      return stride == 1 && padding == dilation * (kernel - 1);
    };
    const bool same = conv && !conv->pooled &&
                      keeps(conv->shape.kernel.h, conv->stride.h, conv->dilation.h,
                            2 * conv->padding.h + conv->more_padding.h) &&
                      keeps(conv->shape.kernel.w, conv->stride.w, conv->dilation.w,
                            2 * conv->padding.w + conv->more_padding.w);
    const bool by_pixel = std::holds_alternative<plan::Activate>(layer) ||
                          std::holds_alternative<plan::Affine>(layer) ||
                          std::holds_alternative<plan::Normalize>(layer) ||
                          std::holds_alternative<plan::Attend>(layer);
    if (!same && !by_pixel) return known;
  }
}

std::optional<Formula> Part::extent(const Arrangement& tensor, int64_t dimension) const {
  const auto d = place_of(dimension, tensor.rank());
  if (!d) return {};
  const Axes& axes = tensor.dimensions[*d];
  if (const auto number = count(axes)) return Formula(c10::IValue(*number));
  return Formula(Extent{tensor.value, axes});
}

bool Part::learn(const Value* value, const std::optional<Formula>& known) {
  if (!known) return false;
  tensors_.erase(value);
  known_.insert_or_assign(value, *known);
  return true;
}

plan::Measure Part::measure(const Formula& formula) const {
  if (const auto number = formula.integer()) return {*number};
  const Extent* const extent = formula.extent();
  const auto fixed = extent ? lowering::count(extent->axes) : std::nullopt;
  if (fixed) return {*fixed};
  return {0, [formula, count = input_count_](const std::vector<plan::Size>& sizes) {
            const auto extent_of = [&](const Extent& e) {
              return lowering::count(e.axes, sizes[e.value < 0 ? -1 - e.value : e.value + *count]);
            };
            try {
              return formula.evaluate(extent_of).toScalar().toLong();
            } catch (const std::exception& error) {
              throw std::invalid_argument(error.what());
            }
          }};
}

// Of all dimensions or of one.
bool Part::size(Node* node) {
  Value* const given = node->input(0);
  // The caller's images are often asked for their size first.
  if (!arranged(given) && given->node()->kind() == c10::prim::Param) tensor(given, 4);
  auto x = arranged(given);
  if (!x) return false;
  if (node->inputs().size() == 1) {
    known_[node->output()] = SizesOf{*std::move(x)};
    return true;
  }
  const auto dimension = number(node->input(1));
  return dimension && learn(node->output(), extent(*x, *dimension));
}

// Of a tensor, its dimensions; of a list.
bool Part::length(Node* node) {
  const Value* input = node->input(0);
  if (const auto x = arranged(input)) {
    return learn(node->output(), Formula(c10::IValue(static_cast<int64_t>(x->rank()))));
  }
  const auto list = numbers(input);
  if (!list) return compute(node);  // of a text
  return learn(node->output(), Formula(c10::IValue(static_cast<int64_t>(list->size()))));
}

// What is known of the input is known of the output: tracing writes a number as a
// tensor and back.
bool Part::pass_on(Node* node) {
  return known_.count(node->input(0)) && alias(node->output(), node->input(0));
}

bool Part::alias(const Value* to, const Value* from) {
  if (inside(from)) {
    const plan::Value x = tensors_.at(from);
    bind(to, x, dimensions_.at(x));
    return true;
  }
  if (const auto found = formula(from)) return learn(to, found);
  const auto found = known_.find(from);
  if (found == known_.end()) return false;
  const Known same = found->second;
  tensors_.erase(to);
  known_.insert_or_assign(to, same);
  aliased_.insert(to);
  aliased_.insert(from);
  return true;
}

// Of a tensor of the part and None, or two of its tensors.
bool Part::is(Node* node, bool negated) {
  const auto a = arranged(node->input(0)), b = arranged(node->input(1));
  if (a && is_none(node->input(1))) return learn(node->output(), Formula(c10::IValue(negated)));
  if (!a || !b) return compute(node);
  const bool same = a->value == b->value && a->dimensions == b->dimensions;
  return learn(node->output(), Formula(c10::IValue(same != negated)));
}

bool Part::message(Node* node) {
  known_[node->output()] = Message{};
  return true;
}

// Of what plans take: others are answered by LibTorch.
bool Part::property(Node* node, std::string_view kind) {
  if (!arranged(node->input())) return compute(node);
  if (kind == "prim::dtype") {
    return learn(node->output(), Formula(c10::IValue(static_cast<int64_t>(at::kFloat))));
  }
  if (kind == "prim::device")
    return learn(node->output(), Formula(c10::IValue(at::Device(at::kCPU))));
  return learn(node->output(), Formula(c10::IValue(false)));
}

std::optional<Formula> Part::operand(const Value* value) const {
  if (const auto found = formula(value)) return found;
  const auto* list = known<Numbers>(value);
  const auto type = list ? value->type()->cast<c10::ListType>() : nullptr;
  if (!type) return {};
  c10::impl::GenericList elements(type->getElementType());
  for (const Formula& element : *list) {
    if (!element.constant()) return {};
    elements.push_back(*element.constant());
  }
  return Formula(c10::IValue(std::move(elements)));
}

// Of numbers that are known, or will be once sizes are. What has nothing to do with the
// part's tensors is left to LibTorch, unless it is a constant's.
bool Part::compute(Node* node) {
  if (node->outputs().size() != 1) return false;
  std::vector<Formula> operands;
  bool mine = false;
  for (const Value* input : node->inputs()) {
    const auto found = operand(input);
    if (!found) return false;
    mine = mine || known_.count(input);
    operands.push_back(*found);
  }
  // Tracing writes a number as a tensor, and back.
  if (node->kind() == c10::aten::Int && operands.size() == 1) {
    if (operands[0].extent()) return learn(node->output(), operands[0]);
    if (const auto n = operands[0].integer())
      return learn(node->output(), Formula(c10::IValue(*n)));
  }
  const bool number = !node->output()->type()->isSubtypeOf(*c10::TensorType::get());
  return (mine || number) && learn(node->output(), Formula::apply(node, std::move(operands)));
}

}  // namespace convship::ops::lowering
