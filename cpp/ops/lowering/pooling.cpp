// What becomes of several pixels or channels: pools, means, sums, maxima and norms.
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

namespace {

// input, kernel size, stride, padding; an empty stride is the kernel's size.
std::optional<plan::Windows> windows_of(const Node* node, bool row, std::size_t ceil_mode) {
  const auto size = constant_pair(node->input(1), row, 1);
  const auto padding = constant_pair(node->input(3), row, 0);
  auto stride = constant_pair(node->input(2), row, 1);
  const auto given = constant_ints(node->input(2));
  if (given && given->empty()) stride = size;
  const auto ceil = constant_int(node->input(ceil_mode));
  if (!is_between(size, 1) || !is_between(stride, 1) || !is_between(padding, 0) || !ceil) return {};
  return plan::Windows{*size, *stride, *padding, *ceil != 0};
}

// Which no layer makes: where a maximum was.
bool needs_second(const Node* node) {
  return node->outputs().size() > 1 && !node->output(1)->uses().empty();
}

}  // namespace

bool Part::max_pool(Node* node, bool row) {
  const auto windows = windows_of(node, row, 5);
  const auto dilation = constant_pair(node->input(4), row, 1);
  if (!windows || !dilation || dilation->h != 1 || dilation->w != 1) return false;
  const auto x = tensor(node->input(0), row ? 3 : 4);
  if (!x) return false;
  finish(node, plan::MaxPool{*windows}, {*x}, layers_.dimensions(*x));
  return true;
}

// With a divisor of its own only for images.
bool Part::average_pool(Node* node, bool row) {
  const auto windows = windows_of(node, row, 4);
  const auto count = constant_int(node->input(5));
  if (!windows || !count || (!row && !is_none(node->input(6)))) return false;
  const auto x = tensor(node->input(0), row ? 3 : 4);
  if (!x) return false;
  finish(node, plan::AveragePool{*windows, *count != 0}, {*x}, layers_.dimensions(*x));
  return true;
}

// A side may be as many as the input's size tells.
bool Part::adaptive_pool(Node* node, plan::Reduction reduction, bool row) {
  auto sides = facts_.numbers(node->input(1));
  if (!sides || sides->empty() || !arranged(node->input(0)) || needs_second(node)) return false;
  if (row) sides->insert(sides->begin(), Formula(int64_t{1}));
  if (sides->size() != 2) return false;
  for (const Formula& side : *sides) {
    const auto number = side.integer();
    if (side.constant() && (!number || *number < 1 || *number > kMostPlaces)) return false;
  }
  const auto x = tensor(node->input(0), row ? 3 : 4);
  if (!x) return false;
  finish(node, plan::AdaptivePool{measure(sides->front()), measure(sides->back()), reduction}, {*x},
         layers_.dimensions(*x));
  return true;
}

// Over one side of the image or both, or the sequence's one, or over channels.
struct Part::Reduced {
  plan::Layer layer;
  Dimensions dimensions;
  std::optional<int64_t> places;  // of which each result is made; nothing where sizes tell
};

std::optional<Part::Reduced> Part::reduced(const Arrangement& x,
                                           const Value* over,
                                           const Value* keep,
                                           plan::Reduction reduction) const {
  const auto given = constant_ints(over);
  const auto kept = constant_int(keep);
  // None are all to torch, images too.
  if (!given || given->empty() || !kept || layers_.dimensions(x.value) == 2) return {};
  std::vector<bool> goes(x.rank(), false);
  for (const int64_t each : *given) {
    const auto d = place_of(each, x.rank());
    if (!d) return {};
    goes[*d] = true;
  }
  Dimensions gone, left;
  for (std::size_t d = 0; d < x.rank(); ++d) {
    if (goes[d]) gone.push_back(x.dimensions[d]);
    if (!goes[d]) left.push_back(x.dimensions[d]);
    if (goes[d] && *kept != 0) left.emplace_back();
  }
  const Dimensions whole = layers_.standard(x.value).dimensions;
  if (gone.size() == 1 && gone[0] == whole[1]) {
    return Reduced{plan::AcrossChannels{reduction}, std::move(left), count(gone[0])};
  }
  plan::AdaptivePool pool{{1}, {1}, reduction};
  if (joined(gone) != joined(whole, 2)) {
    if (gone.size() != 1 || layers_.dimensions(x.value) != 4) return {};
    const bool rows = gone[0] == whole[2];
    if (!rows && gone[0] != whole[3]) return {};
    (rows ? pool.width : pool.height) = measure(Formula(Extent{x.value, whole[rows ? 3 : 2]}));
  }
  return Reduced{std::move(pool), std::move(left), count(joined(gone))};
}

// input, dimension(s), whether they are kept, and of means and sums the type
bool Part::reduce(Node* node, plan::Reduction reduction) {
  const bool typed = reduction != plan::Reduction::maximum;
  if (node->inputs().size() != (typed ? 4 : 3)) return compute(node);  // of numbers
  const auto x = arranged(node->input(0));
  if (!x || needs_second(node) || (typed && !is_none(node->input(3)))) return false;
  auto made = reduced(*x, node->input(1), node->input(2), reduction);
  if (!made) return reduce_pieces(node, reduction);
  const int64_t dimensions = layers_.dimensions(x->value);
  const plan::Value y = layers_.add(std::move(made->layer), {x->value}, dimensions);
  show(node->output(0), {y, std::move(made->dimensions)});
  return true;
}

// input, dimensions, what is taken off the number that divides, whether they are kept: the
// variance, or its root.
bool Part::variance(Node* node, bool root) {
  const auto x = arranged(node->input(0));
  if (!x || node->inputs().size() != 4) return false;
  const auto made = reduced(*x, node->input(1), node->input(3), plan::Reduction::mean);
  std::optional<double> taken = constant_number(node->input(2));
  if (is_none(node->input(2))) taken = 1;
  if (const auto flag = constant_int(node->input(2))) taken = static_cast<double>(*flag);
  if (!made || !taken || *taken < 0) return false;
  const int64_t dimensions = layers_.dimensions(x->value);
  const bool across = std::holds_alternative<plan::AcrossChannels>(made->layer);
  const bool channels = across || layers_.channels(x->value);
  if (*taken > 0 && (!channels || !made->places || *made->places <= *taken)) return false;
  const plan::Value mean = layers_.add(made->layer, {x->value}, dimensions);
  const plan::Value centred =
      layers_.add_like(x->value, plan::Combine{How::subtract}, {x->value, mean});
  plan::Value y = layers_.add(made->layer, {squares(centred)}, dimensions);
  if (*taken > 0) {
    const auto places = static_cast<double>(*made->places);
    y = times(y, places / (places - *taken));
  }
  show(node->output(), {root ? roots(y) : y, made->dimensions});
  return true;
}

// input, order, dimensions, whether they are kept, type: Euclidean.
bool Part::norm(Node* node) {
  const auto x = arranged(node->input(0));
  const std::size_t inputs = node->inputs().size();  // fewer: over all there is
  if (!x || inputs < 4 || (inputs == 5 && !facts_.is_none(node->input(4))) ||
      facts_.real(node->input(1)) != 2.0) {
    return false;
  }
  if (norm_of_heads(node, *x)) return true;
  auto made = reduced(*x, node->input(2), node->input(3), plan::Reduction::sum);
  if (!made) return false;
  const int64_t dimensions = layers_.dimensions(x->value);
  const plan::Value sums = layers_.add(std::move(made->layer), {squares(x->value)}, dimensions);
  show(node->output(), {roots(sums), std::move(made->dimensions)});
  return true;
}

}  // namespace convship::ops::lowering
