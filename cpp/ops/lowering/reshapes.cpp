// Reshapes: places of a tensor counted through in dimensions of other numbers.
#include <algorithm>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using Side = Axis::Side;

bool Part::view(Node* node) {
  if (const auto* scores = facts_.find<Scores>(node->input(0))) {
    return view_scores(node, *scores);
  }
  const auto shape = facts_.numbers(node->input(1));
  return shape && view_to(node, *shape);
}

bool Part::view_as(Node* node) {
  const auto like = arranged(node->input(1));
  return like && view_to(node, sizes_of(*like));
}

bool Part::view_to(Node* node, const Numbers& shape) {
  const auto x = arranged(node->input(0));
  if (!x) return false;
  if (auto image = from_a_row(*x, shape)) return show_again(node, *std::move(image));
  auto dimensions = reshaped(*x, x->dimensions, shape);
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
  const auto places = [&](const Axes& axes) {
    return measure(Formula(Extent{x.value, axes}))(*sizes);
  };
  const auto fits = [&](const Dimensions& guess) {
    for (std::size_t d = 0; d < guess.size(); ++d) {
      const auto number = count(guess[d]);
      const bool told = targets[d].number == -1 || (number && number == targets[d].number);
      const bool whole = std::all_of(guess[d].begin(), guess[d].end(),
                                     [](const Axis& axis) { return axis.count || axis.step == 1; });
      if (told && whole) continue;
      if (!sizes) sizes = expected_sizes(1);
      if (!sizes) return true;
      try {
        for (const Axis& axis : guess[d]) {
          if (!axis.count && places({{axis.side}}) % axis.step != 0) return false;
        }
        if (!told && !targets[d].batch && places(guess[d]) != measure(shape[d])(*sizes)) {
          return false;
        }
      } catch (const std::invalid_argument&) {
        return true;
      }
    }
    return true;
  };
  auto to = reshape(from, targets, fits);
  if (!to) to = reshaped_as_expected(x.value, joined(from), shape);
  if (!to) to = reshape(from, targets, [](const Dimensions&) { return true; });
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

// Of axes as many as they are for images of the size that is expected.
std::optional<Dimensions> Part::reshaped_as_expected(plan::Value x,
                                                     const Axes& from,
                                                     const Numbers& shape) {
  constexpr int64_t kImages = 1009;  // a prime: it divides no number but those of images
  const auto sizes = expected_sizes(kImages);
  if (!sizes) return {};
  std::vector<int64_t> places, numbers;
  int64_t all = 1, asked = 1;
  std::optional<std::size_t> open;
  try {
    for (const Axis& axis : from) {
      places.push_back(measure(Formula(Extent{x, {axis}}))(*sizes));
      all *= places.back();
    }
    for (const Formula& number : shape) {
      if (number.integer() == -1) open = numbers.size();
      numbers.push_back(number.integer() == -1 ? 1 : measure(number)(*sizes));
      if (numbers.back() < 1 || numbers.back() > all / asked) return {};
      asked *= numbers.back();
    }
  } catch (const std::invalid_argument&) {
    return {};
  }
  if (all % asked != 0 || (!open && all != asked)) return {};
  if (open) numbers[*open] = all / asked;
  auto to = reshape(from, std::move(places), numbers);
  if (to) depends_on_sides_ = true;
  return to;
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

}  // namespace convship::ops::lowering
