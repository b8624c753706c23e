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

namespace {

// The places that axes of known numbers count through, in their order.
std::vector<int64_t> places_of(const Axes& axes) {
  std::vector<int64_t> places{0};
  for (const Axis& axis : axes) {
    std::vector<int64_t> finer;
    for (const int64_t place : places) {
      for (int64_t i = 0; i < *axis.count; ++i) finer.push_back(place + i * axis.step);
    }
    places = std::move(finer);
  }
  return places;
}

}  // namespace

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

bool Part::transpose(Node* node) {
  auto x = arranged(node->input(0));
  const auto a = constant_int(node->input(1)), b = constant_int(node->input(2));
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

bool Part::view(Node* node) {
  if (const auto* scores = facts_.find<Scores>(node->input(0))) {
    return view_scores(node, *scores);
  }
  const auto shape = facts_.numbers(node->input(1));
  const auto x = arranged(node->input(0));
  if (!x || !shape) return false;
  if (auto image = from_a_row(*x, *shape)) return show_again(node, *std::move(image));
  auto dimensions = reshaped(*x, x->dimensions, *shape);
  return dimensions && show_again(node, {x->value, *std::move(dimensions)});
}

// Positions in a row as those of an image, whose sides sizes tell.
std::optional<Arrangement> Part::from_a_row(const Arrangement& x, const Numbers& shape) {
  if (layers_.dimensions(x.value) != 3 || x.rank() != 3 || shape.size() != 4) return {};
  const Dimensions whole = layers_.standard(x.value).dimensions;
  const auto row = std::find(x.dimensions.begin(), x.dimensions.end(), whole[2]);
  if (whole[2].empty() || row == x.dimensions.end() || x.dimensions[0] != whole[0]) return {};
  const auto at = static_cast<std::size_t>(row - x.dimensions.begin());
  const Formula &height = shape[at], &width = shape[at + 1];
  const bool told = height.integer() && width.integer();
  const auto other = shape[at == 1 ? 3 : 1].integer();
  if (told || height.integer() == -1 || width.integer() == -1 || !is_batch(shape[0], x.value) ||
      (other != -1 && other != layers_.channels(x.value))) {
    return {};
  }
  Arrangement image = x;
  image.value = layers_.add_view(x.value, plan::ReshapePixels{measure(height), measure(width)}, 4);
  const Dimensions now = layers_.standard(image.value).dimensions;
  image.dimensions = replaced(x.dimensions, at, at + 1, {now[2], now[3]});
  return image;
}

// input, dimension, sizes
bool Part::unflatten(Node* node) {
  const auto d = facts_.number(node->input(1));
  const auto sizes = facts_.numbers(node->input(2));
  const auto x = arranged(node->input(0));
  const auto at = x ? place_of(d, x->rank()) : std::nullopt;
  if (!at || !sizes) return false;
  const auto parts = reshaped(*x, {x->dimensions[*at]}, *sizes);
  return parts && show_again(node, {x->value, replaced(x->dimensions, *at, *at + 1, *parts)});
}

// Some of a tensor's dimensions as others. What is a guess becomes a requirement.
std::optional<Dimensions> Part::reshaped(const Arrangement& x,
                                         const Dimensions& from,
                                         const Numbers& shape) {
  std::vector<Target> targets;
  for (const Formula& number : shape) {
    if (!number.integer() && number.constant()) return {};
    targets.push_back({number.integer(), is_batch(number, x.value), number.factors()});
  }
  std::optional<std::vector<plan::Size>> sizes;
  const auto fits = [&](const Dimensions& guess) {
    for (std::size_t d = 0; d < guess.size(); ++d) {
      const auto number = count(guess[d]);
      if (targets[d].number == -1 || (number && number == targets[d].number)) continue;
      if (!sizes) sizes = expected_sizes(1);
      if (!sizes) return true;
      try {
        const int64_t got = measure(Formula(Extent{x.value, guess[d]}))(*sizes);
        if (got != measure(shape[d])(*sizes) && !targets[d].batch) return false;
      } catch (const std::invalid_argument&) {
        return true;
      }
    }
    return true;
  };
  auto to = reshape(from, targets, fits);
  if (!to) return {};
  for (std::size_t d = 0; d < to->size(); ++d) {
    for (const Axis& axis : (*to)[d]) {
      if (axis.count || axis.step == 1) continue;
      const Extent side{x.value, {{axis.side}}};
      require([side = measure(Formula(side)), step = axis.step](const auto& sizes) {
        return side(sizes) % step == 0;
      });
    }
    if (targets[d].number == -1 || targets[d].batch) continue;
    const auto number = count((*to)[d]);
    if (number && number == targets[d].number) continue;
    if (targets[d].number) learn_side(x.value, (*to)[d], *targets[d].number);
    require([asked = measure(shape[d]), got = measure(Formula(Extent{x.value, (*to)[d]}))](
                const auto& sizes) { return asked(sizes) == got(sizes); });
  }
  return layers_.with_known_sides({x.value, *std::move(to)}).dimensions;
}

// Of which a graph says that axes count so many.
void Part::learn_side(plan::Value x, const Axes& axes, int64_t number) {
  int64_t unknown = 0, others = 1;
  for (const Axis& axis : axes) {
    unknown += axis.count ? 0 : 1;
    others *= axis.count.value_or(1);
  }
  if ((unknown > 1 && number > 1) || number % others != 0) return;
  plan::Pair known{0, 0};
  for (const Axis& axis : axes) {
    if (axis.count) continue;
    if (axis.side == Side::h) known.h = number / others * axis.step;
    if (axis.side == Side::w) known.w = number / others * axis.step;
  }
  layers_.learn_sides(x, known);
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
    auto chosen = one_of_channels(*x, *at, one);
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

// Channels of which the axes of one dimension are at a place.
std::optional<Arrangement> Part::one_of_channels(const Arrangement& x,
                                                 std::size_t dimension,
                                                 int64_t index) {
  const int64_t first = places_of(x.dimensions[dimension])[index];
  Arrangement left{x.value, replaced(x.dimensions, dimension, dimension + 1, {})};
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
