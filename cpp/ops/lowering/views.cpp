// Tensors that show a value of the plan in other dimensions: permuted, split and joined,
// until a layer needs images again.
#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;
using Side = Axis::Side;

std::optional<Arrangement> Part::arranged(const Value* value) const {
  if (const auto* found = facts_.find<Arrangement>(value)) return layers_.with_known_sides(*found);
  if (inside(value)) return layers_.standard(tensors_.at(value));
  return {};
}

bool Part::is_one_for_each_image(const Arrangement& tensor) const {
  return tensor.rank() > 0 && tensor.dimensions[0] == Axes{{Side::n}};
}

bool Part::shows_channels(const Axes& axes, plan::Value x) const {
  return axes == layers_.standard(x).dimensions[1];
}

void Part::show(const Value* output, Arrangement what) {
  what = layers_.with_known_sides(std::move(what));
  if (const auto x = settle(what, false)) {
    bind(output, *x, static_cast<int64_t>(what.rank()));
    return;
  }
  tensors_.erase(output);
  facts_.learn(output, std::move(what));
}

// Writing through any of the two would change both.
bool Part::show_again(const Node* node, Arrangement what) {
  const plan::Value of = what.value;
  show(node->output(), std::move(what));
  layers_.mark_shown(of);
  return true;
}

// As it is where nothing has to move, else by layers; `may_move`: an image's values, too, and
// not only a matrix's.
std::optional<plan::Value> Part::settle(const Arrangement& what, bool may_move) {
  plan::Value x = what.value;
  const Dimensions whole = layers_.standard(x).dimensions;
  const Dimensions& shown = what.dimensions;
  const std::size_t rank = what.rank();
  if (shown == whole) return x;
  if (may_move) {
    if (const auto standard = as_standard(what)) return standard;
    if (const auto pixels = shuffled_pixels(what)) return pixels;
    if (const auto squares = unshuffled_pixels(what, 1)) return settle(*squares, true);
  }
  if (rank < 2 || rank > 4 || shown[0] != whole[0]) return {};
  const Axes order = joined(shown, 1);
  const auto pixels = std::find_if_not(order.begin(), order.end(), is_channel);
  if (Axes(pixels, order.end()) != joined(whole, 2)) return {};
  const Axes of_channels(order.begin(), pixels);
  const bool by_channel = rank == 2 || shown[1] == of_channels;
  const auto height = rank == 4 ? count(shown[2]) : 1, width = count(shown.back());
  if (!by_channel && (!may_move || !height || !width)) return {};
  const bool as_before = rank == whole.size() && by_channel &&
                         std::equal(shown.begin() + 2, shown.end(), whole.begin() + 2);
  // While no layer needs them otherwise, rows are known to be rows.
  if (rank > 2 && layers_.dimensions(x) != 2 && !as_before && !may_move) return {};
  if (of_channels != whole[1]) {
    const auto all = layers_.channels(x);
    if (!all || count(of_channels) != all) return {};
    x = layers_.select(x, places_of(of_channels));
  }
  const bool is_matrix = layers_.dimensions(x) == 2;
  if (as_before) return x;
  if (by_channel && rank > 2 && !is_matrix) {
    const Axes one_row;
    const auto side = [&](const Axes& axes) { return measure(Formula(Extent{what.value, axes})); };
    return layers_.add_view(
        x, plan::ReshapePixels{side(rank == 4 ? shown[2] : one_row), side(shown.back())},
        static_cast<int64_t>(rank));
  }
  if (!is_matrix) x = layers_.add_view(x, plan::Flatten{}, 2);
  if (rank > 2) {
    x = layers_.add_view(x, plan::Unflatten{{*height, *width}}, static_cast<int64_t>(rank));
  }
  return x;
}

// With all pixels in a row, where one dimension counts through them.
Arrangement Part::in_a_row(Arrangement what) {
  if (layers_.dimensions(what.value) != 4) return what;
  const Axes pixels = joined(layers_.standard(what.value).dimensions, 2);
  const auto all = std::find(what.dimensions.begin(), what.dimensions.end(), pixels);
  if (pixels.empty() || all == what.dimensions.end()) return what;
  const auto side = [&](const Axes& axes) { return measure(Formula(Extent{what.value, axes})); };
  what.value = layers_.add_view(what.value, plan::ReshapePixels{side({}), side(pixels)}, 3);
  *all = layers_.standard(what.value).dimensions[2];
  return what;
}

plan::Value Part::as_image(plan::Value x) {
  return layers_.dimensions(x) == 2 ? layers_.add_view(x, plan::Unflatten{{1, 1}}, 4) : x;
}

std::optional<plan::Value> Part::elements(const Value* value) const {
  const auto found = arranged(value);
  return found ? std::optional(found->value) : std::nullopt;
}

void Part::finish_like(Node* node,
                       const Value* like,
                       plan::Layer layer,
                       std::vector<plan::Value> inputs) {
  const Arrangement as = *arranged(like);
  const plan::Value made = layers_.add_like(as.value, std::move(layer), std::move(inputs));
  show(node->output(0), {made, as.dimensions});
}

bool Part::finish_each(Node* node, const Value* x, plan::Layer layer, bool in_place) {
  const auto value = elements(x);
  if (!value || (in_place && !may_overwrite(x))) return false;
  if (in_place) {
    finish(node, std::move(layer), {*value}, layers_.dimensions(*value), true);
  } else {
    finish_like(node, x, std::move(layer), {*value});
  }
  return true;
}

bool Part::permute(Node* node) {
  const auto order = constant_ints(node->input(1));
  if (const auto* scores = order ? facts_.find<Scores>(node->input(0)) : nullptr) {
    return turn_scores(node, *scores, *order);
  }
  auto x = arranged(node->input(0));
  if (!x || !order || order->size() != x->rank()) return false;
  Dimensions permuted;
  for (const int64_t d : *order) {
    const auto at = place_of(d, x->rank());
    if (!at) return false;
    permuted.push_back(x->dimensions[*at]);
  }
  return show_again(node, {x->value, std::move(permuted)});
}

bool Part::transpose(Node* node, std::optional<int64_t> a, std::optional<int64_t> b) {
  auto x = arranged(node->input(0));
  if (const auto* scores = a && b ? facts_.find<Scores>(node->input(0)) : nullptr) {
    const auto one = place_of(a, scores->q.rank()), other = place_of(b, scores->q.rank());
    std::vector<int64_t> order(scores->q.rank());
    std::iota(order.begin(), order.end(), 0);
    if (one && other) std::swap(order[*one], order[*other]);
    return turn_scores(node, *scores, std::move(order));
  }
  if (!x) return false;
  const auto first = place_of(a, x->rank()), second = place_of(b, x->rank());
  if (!first || !second) return false;
  std::swap(x->dimensions[*first], x->dimensions[*second]);
  return show_again(node, *std::move(x));
}

bool Part::unsqueeze(Node* node) {
  auto x = arranged(node->input(0));
  const auto d = facts_.number(node->input(1));
  const auto at = x ? place_of(d, x->rank() + 1) : std::nullopt;
  return at && show_again(node, {x->value, replaced(x->dimensions, *at, *at, {Axes{}})});
}

bool Part::squeeze(Node* node) {
  auto x = arranged(node->input(0));
  const auto over = node->inputs().size() == 2 ? constant_ints(node->input(1)) : std::nullopt;
  if (!x || !over) return false;
  std::vector<bool> dropped(x->rank(), false);
  for (const int64_t d : *over) {
    const auto at = place_of(d, x->rank());
    // Of another number it stays.
    if (!at || !x->dimensions[*at].empty()) return false;
    dropped[*at] = true;
  }
  Dimensions left;
  for (std::size_t d = 0; d < x->rank(); ++d) {
    if (!dropped[d]) left.push_back(x->dimensions[d]);
  }
  return show_again(node, {x->value, std::move(left)});
}

// input, first and last dimension
bool Part::flatten(Node* node) {
  const auto from = constant_int(node->input(1)), to = constant_int(node->input(2));
  Value* const given = node->input(0);
  // The caller's images.
  if (!arranged(given) && from == 1 && to == -1) tensor(given, 4);
  const auto x = arranged(given);
  if (!x) return false;
  const auto first = place_of(from, x->rank()), last = place_of(to, x->rank());
  if (!first || !last || *first > *last) return false;
  Axes all;
  for (std::size_t d = *first; d <= *last; ++d) {
    all.insert(all.end(), x->dimensions[d].begin(), x->dimensions[d].end());
  }
  return show_again(node, {x->value, replaced(x->dimensions, *first, *last + 1, {all})});
}

// As large as another tensor; norms of a tensor's last dimension, for all of its places.
bool Part::expand_as(Node* node) {
  const auto like = arranged(node->input(1));
  if (!like) return false;
  if (const auto* norms = facts_.find<Norms>(node->input(0))) {
    const Arrangement spread = norms->spread;
    if (like->dimensions != spread.dimensions) return false;
    show(node->output(), spread);
    return true;
  }
  return expand_to(node, sizes_of(*like));
}

bool Part::expand_to(Node* node, Numbers sizes) {
  const auto x = arranged(node->input(0));
  if (!x || x->rank() != sizes.size() || in_loop(node)) return false;
  const Numbers own = sizes_of(*x);
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d].integer() == -1) sizes[d] = own[d];
  }
  facts_.learn(node->output(), Expanded{node->input(0), std::move(sizes)});
  return true;
}

bool Part::contiguous(Node* node) {
  const auto format = constant_int(node->input(1));
  if (format != static_cast<int64_t>(at::MemoryFormat::Contiguous) || !identity(node, 0)) {
    return false;
  }
  // The same tensor or a copy, as the call's layout will have it: neither is written to.
  layers_.mark_shown(*elements(node->input(0)));
  return true;
}

// Of one that counts through some channels, or through the pixels of a row.
bool Part::select_one(Node* node) {
  auto x = arranged(node->input(0));
  const auto d = constant_int(node->input(1)), index = constant_int(node->input(2));
  const auto at = x ? place_of(d, x->rank()) : std::nullopt;
  if (!at || !index) return false;
  const Axes axes = x->dimensions[*at];
  const auto among = count(axes);
  if (among && std::all_of(axes.begin(), axes.end(), is_channel)) {
    const int64_t one = *index < 0 ? *index + *among : *index;
    if (one < 0 || one >= *among) return false;
    auto chosen = some_of_channels(*x, *at, {one, one + 1}, true);
    return chosen && show_again(node, *std::move(chosen));
  }
  *x = in_a_row(*std::move(x));
  if (layers_.dimensions(x->value) != 3 ||
      x->dimensions[*at] != layers_.standard(x->value).dimensions[2]) {
    return false;
  }
  const int64_t end = *index == -1 ? std::numeric_limits<int64_t>::max() : *index + 1;
  const plan::Value one = crop(x->value, Side::w, {*index}, {end});
  layers_.learn_sides(one, {1, 1});
  return show_again(node, {one, replaced(x->dimensions, *at, *at + 1, {})});
}

// Rows or columns from `begin` up to `end`, as a slice counts them: what is left out is padding
// of less than nothing.
plan::Value Part::crop(plan::Value x, Side side, plan::Measure begin, plan::Measure end) {
  const plan::Measure all = measure(Formula(Extent{x, {{side}}}));
  const auto place = [all](int64_t given, const std::vector<plan::Size>& sizes) {
    const int64_t count = all(sizes);
    return std::clamp<int64_t>(given < 0 ? given + count : given, 0, count);
  };
  const plan::Measure before{0, [place, begin](const std::vector<plan::Size>& sizes) {
                               return -place(begin(sizes), sizes);
                             }};
  const plan::Measure behind{0, [all, place, end](const std::vector<plan::Size>& sizes) {
                               return place(end(sizes), sizes) - all(sizes);
                             }};
  plan::Pad pad{};
  pad.kind = plan::Pad::Kind::constant;
  (side == Side::h ? pad.top : pad.left) = before;
  (side == Side::h ? pad.bottom : pad.right) = behind;
  const plan::Pair known = layers_.sides(x);
  x = layers_.add_view(x, std::move(pad), layers_.dimensions(x));
  layers_.learn_sides(x, side == Side::h ? plan::Pair{0, known.w} : plan::Pair{known.h, 0});
  return x;
}

// Channels of which the axes of one dimension are at some of their places; `drop`: at the one
// place there is, without that dimension.
std::optional<Arrangement> Part::some_of_channels(const Arrangement& x,
                                                  std::size_t dimension,
                                                  kernels::conv2d::Range range,
                                                  bool drop) {
  const Axes& among = x.dimensions[dimension];
  const int64_t first = places_of(among)[range.begin], count = range.end - range.begin;
  Dimensions kept;
  if (!drop) kept = {count == 1 ? Axes{} : Axes{{Side::c, among[0].step, count}}};
  Arrangement left{x.value, replaced(x.dimensions, dimension, dimension + 1, kept)};
  std::vector<Axis*> axes;  // of channels
  for (Axes& each : left.dimensions) {
    for (Axis& axis : each) {
      if (is_channel(axis)) axes.push_back(&axis);
    }
  }
  std::sort(axes.begin(), axes.end(),
            [](const Axis* a, const Axis* b) { return a->step > b->step; });
  Axes order;
  for (const Axis* axis : axes) {
    if (!axis->count) return {};
    order.push_back(*axis);
  }
  std::vector<int64_t> from = places_of(order);
  for (int64_t& channel : from) channel += first;
  int64_t step = 1;
  for (auto axis = axes.rbegin(); axis != axes.rend(); ++axis) {
    (*axis)->step = step;
    step *= *(*axis)->count;
  }
  left.value = layers_.select(x.value, std::move(from));
  layers_.share(left.value, x.value);
  return left;
}

}  // namespace convship::ops::lowering
