// Sums, differences, products, quotients and extremes: of tensors, and of a tensor and constants.
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

namespace {

// Added to a product it keeps the sign of a zero.
constexpr double kNothing = -0.0;

// Whether x op c, or reversed c op x, is scale * x + shift.
bool is_line(Part::How how, bool reversed) {
  return how != Part::How::maximum && how != Part::How::minimum &&
         !(how == Part::How::divide && reversed);
}

// As such; nothing where c cannot be divided by.
struct Line {
  double scale, shift;
};
std::optional<Line> line_of(Part::How how, double c, bool reversed) {
  switch (how) {
    case Part::How::add:
      return Line{1, c};
    case Part::How::subtract:
      return reversed ? Line{-1, c} : Line{1, -c};
    case Part::How::multiply:
      return Line{c, kNothing};
    case Part::How::divide:
      return c == 0 ? std::nullopt : std::optional(Line{1 / c, kNothing});
    case Part::How::maximum:
    case Part::How::minimum:
      break;
  }
  return {};
}

using Measures = std::vector<plan::Measure>;

// Whether broadcasting these tensors makes one of such dimensions, or ones in place of them.
bool reach(const std::vector<Measures>& tensors,
           const Measures& asked,
           const std::vector<plan::Size>& sizes) {
  for (std::size_t d = 1; d <= asked.size(); ++d) {  // from the last one on
    int64_t largest = 1;
    for (const Measures& own : tensors) {
      if (d <= own.size()) largest = std::max(largest, own[own.size() - d](sizes));
    }
    const int64_t number = asked[asked.size() - d](sizes);
    if (number != 1 && number != largest) return false;
  }
  return true;
}

}  // namespace

// Operands that were expanded are repeated here, where together they reach those sizes.
bool Part::combine(Node* node, How how, bool in_place) {
  Value *a = node->input(0), *b = node->input(1);
  const auto* first = facts_.find<Expanded>(a);
  const auto* second = facts_.find<Expanded>(b);
  if (!first && !second) return combine(node, a, b, how, in_place);
  std::vector<Measures> asked;
  for (const auto* each : {first, second}) {
    if (each) asked.push_back(measures(each->sizes));
  }
  if (first) a = first->tensor;
  if (second) b = second->tensor;
  const auto x = arranged(a), y = arranged(b);
  if (!x || !y || (first && in_place)) return false;
  const auto reached = [asked, own = std::vector{measures(sizes_of(*x)), measures(sizes_of(*y))}](
                           const std::vector<plan::Size>& sizes) {
    return std::all_of(asked.begin(), asked.end(),
                       [&](const Measures& all) { return reach(own, all, sizes); });
  };
  if (!may_expect(reached) || !combine(node, a, b, how, in_place)) return false;
  require(reached);
  return true;
}

// a, b, and of sums and differences a factor of b.
bool Part::combine(Node* node, Value* a, Value* b, How how, bool in_place) {
  const bool of_tensor = arranged(a) || facts_.find<Scores>(a);
  const bool of_table = is_table(a) && arranged(b);
  if (!of_table && (facts_.find<Formula>(a) || (facts_.find<Formula>(b) && !of_tensor))) {
    return compute(node);
  }
  if (const auto* scores = facts_.find<Scores>(a)) return change_scores(node, *scores, how);
  const bool sums = how == How::add || how == How::subtract;
  const auto factor = sums && node->inputs().size() == 3 ? constant_number(node->input(2)) : 1.0;
  if (!factor || node->inputs().size() != (sums ? 3 : 2)) return compute(node);
  if (const auto number = facts_.real(b)) {
    return combine_with(node, a, how, *number * *factor, false, in_place);
  }
  if (*factor != 1) return false;
  if (constant(b) || is_table(b)) return combine_with(node, a, how, b, false, in_place);
  if (constant(a) || is_table(a)) return !in_place && combine_with(node, b, how, a, true, false);
  if (in_place && !may_overwrite(a)) return false;
  const plan::Layer layer = how == How::add ? plan::Layer(plan::Add{.into_first = in_place})
                                            : plan::Combine{how, in_place};
  const auto shown = arranged(a);
  const auto* norms = facts_.find<Norms>(b);
  if (norms && (!shown || shown->dimensions != norms->spread.dimensions)) return false;
  const auto other = norms ? std::optional(norms->spread) : arranged(b);
  const bool as_images = inside(a) && inside(b) && shown->rank() == other->rank();
  if (shown && other && !as_images) {
    if (in_place) return false;
    if (combine(node, layer, *shown, *other)) return true;
    const auto rank = static_cast<int64_t>(shown->rank());
    if (!inner(a, rank) || !inner(b, rank)) return false;
  }
  if (!inside(a) && !inside(b)) return false;
  const int64_t dimensions = layers_.dimensions(tensors_.at(inside(a) ? a : b));
  if (!tensor(inside(a) ? b : a, dimensions)) return false;
  finish(node, layer, {tensors_.at(a), tensors_.at(b)}, dimensions, in_place);
  return true;
}

// Of tensors in other dimensions than images have. The places of the smaller one meet those of
// the larger one.
bool Part::combine(Node* node, plan::Layer layer, Arrangement a, Arrangement b) {
  while (a.rank() < b.rank()) a.dimensions.emplace(a.dimensions.begin());
  while (b.rank() < a.rank()) b.dimensions.emplace(b.dimensions.begin());
  align(a, b);
  Dimensions both;
  for (std::size_t d = 0; d < a.rank(); ++d) {
    if (!broadcasts(a.dimensions[d], b.dimensions[d])) return false;
    both.push_back(a.dimensions[d].empty() ? b.dimensions[d] : a.dimensions[d]);
  }
  const bool matrices = layers_.dimensions(a.value) == 2 && layers_.dimensions(b.value) == 2;
  for (Arrangement* x : {&a, &b}) {
    if (!matrices) x->value = as_image(x->value);
  }
  const int64_t dimensions = std::max(layers_.dimensions(a.value), layers_.dimensions(b.value));
  // Where an operand is spread, its sides are not those of the result.
  const auto is_like_both = [&](const Arrangement& x) {
    return layers_.dimensions(x.value) == dimensions &&
           std::equal(x.dimensions.begin(), x.dimensions.end(), both.begin(),
                      [](const Axes& mine, const Axes& of_both) {
                        return mine.empty() == of_both.empty();
                      });
  };
  const Arrangement* like = is_like_both(a) ? &a : is_like_both(b) ? &b : nullptr;
  const std::vector<plan::Value> inputs{a.value, b.value};
  const plan::Value made = like ? layers_.add_like(like->value, std::move(layer), inputs)
                                : layers_.add(std::move(layer), inputs, dimensions);
  show(node->output(), {made, std::move(both)});
  return true;
}

// number - x * factor
bool Part::subtract_from(Node* node) {
  const auto number = constant_number(node->input(1)), factor = constant_number(node->input(2));
  if (!number || !factor || facts_.find<Formula>(node->input(0))) return compute(node);
  return scale_by_number(node, node->input(0), -*factor, *number, false);
}

// Of a constant, or of a table that the graph makes of sizes.
std::optional<at::Tensor> Part::numbers_in(const Value* value) const {
  const auto found = facts_.constant_tensor(value);
  return found ? dense(*found) : std::nullopt;
}

// A constant for each channel of x, from a tensor that broadcasting makes that.
std::optional<at::Tensor> Part::by_channel(const Value* constants, const Value* x) const {
  const auto value = elements(x);
  const auto channels = value ? layers_.channels(*value) : std::nullopt;
  const auto by = numbers_in(constants);
  if (!channels || !by) return {};
  const Dimensions shown = arranged(x)->dimensions;
  const auto spread = with_rank(*by, shown.size());
  if (!spread) return {};
  // Where among the constants each channel's is.
  std::vector<int64_t> places(*channels, 0);
  for (std::size_t d = 0; d < shown.size(); ++d) {
    const int64_t size = spread->size(static_cast<int64_t>(d));
    const Axes& axes = shown[d];
    if (size == 1) continue;
    if (count(axes) != size || !std::all_of(axes.begin(), axes.end(), is_channel)) return {};
    for (int64_t c = 0; c < *channels; ++c) {
      int64_t place = 0;
      for (const Axis& axis : axes) place = place * *axis.count + c / axis.step % *axis.count;
      places[c] = places[c] * size + place;
    }
  }
  return spread->flatten().index_select(0, at::tensor(places));
}

// With a constant for each channel, or one for all of them.
bool Part::combine_with(
    Node* node, const Value* x, How how, const Value* constants, bool reversed, bool in_place) {
  const auto all = elements(x) ? numbers_in(constants) : std::nullopt;
  if (!all || all->dim() > static_cast<int64_t>(arranged(x)->rank())) return false;
  if (all->numel() == 1) {
    return combine_with(node, x, how, all->item<float>(), reversed, in_place);
  }
  auto by = by_channel(constants, x);
  // What the last dimension counts through may become channels.
  std::optional<Arrangement> turned;
  if (!by && !in_place && all->size(-1) == all->numel()) {
    const Arrangement shown = *arranged(x);
    turned = with_channels_at(shown, shown.rank() - 1, all->numel());
    if (turned) by = all;
  }
  const auto finish = [&](plan::Layer layer) {
    if (!turned) return finish_each(node, x, std::move(layer), in_place);
    turned->value = layers_.add_like(turned->value, std::move(layer), {turned->value});
    show(node->output(), *turned);
    return true;
  };
  if (!by) {
    return !in_place && combine_image(node, x, how, *all, reversed);
  }
  if (!is_line(how, reversed)) {
    return finish(plan::CombineNumbers{how, floats_of(*by), reversed});
  }
  auto scale = std::make_shared<std::vector<float>>();
  auto shift = std::make_shared<std::vector<float>>();
  for (int64_t c = 0; c < by->numel(); ++c) {
    const auto line = line_of(how, by->const_data_ptr<float>()[c], reversed);
    if (!line || !std::isfinite(static_cast<float>(line->scale))) return false;
    scale->push_back(static_cast<float>(line->scale));
    shift->push_back(static_cast<float>(line->shift));
  }
  return finish(plan::Affine{std::move(scale), std::move(shift)});
}

// input + value * first * second, where all but the second are constants.
bool Part::add_product(Node* node) {
  const Value* x = node->input(2);
  const auto shift = by_channel(node->input(0), x), scale = by_channel(node->input(1), x);
  if (!shift || !scale || constant_number(node->input(3)) != 1.0) return false;
  return finish_each(node, x, plan::Affine{floats_of(*scale), floats_of(*shift)}, false);
}

bool Part::combine_with(
    Node* node, const Value* x, How how, double number, bool reversed, bool in_place) {
  if (!is_line(how, reversed)) {
    auto all = for_each_channel(elements(x), number);
    return all &&
           finish_each(node, x, plan::CombineNumbers{how, std::move(all), reversed}, in_place);
  }
  const auto line = line_of(how, number, reversed);
  return line && scale_by_number(node, x, line->scale, line->shift, in_place);
}

bool Part::scale_by_number(Node* node, const Value* x, double scale, double shift, bool in_place) {
  const auto value = elements(x);
  auto factors = for_each_channel(value, scale), shifts = for_each_channel(value, shift);
  if (!factors || !shifts || !std::isfinite(static_cast<float>(scale))) return false;
  return finish_each(node, x, plan::Affine{std::move(factors), std::move(shifts)}, in_place);
}

// Null where nothing tells how many channels there are.
std::shared_ptr<const std::vector<float>> Part::for_each_channel(std::optional<plan::Value> x,
                                                                 double number) const {
  const auto count = x ? layers_.channels(*x) : std::nullopt;
  if (!count) return nullptr;
  return std::make_shared<const std::vector<float>>(*count, static_cast<float>(number));
}

// By a number. It is known how many channels there are.
plan::Value Part::times(plan::Value x, double factor) {
  return layers_.add_like(
      x, plan::Affine{for_each_channel(x, factor), for_each_channel(x, kNothing)}, {x});
}

}  // namespace convship::ops::lowering
