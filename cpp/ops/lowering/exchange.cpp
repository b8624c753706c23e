// Layers over positions, as MLP-Mixer has them (Tolstikhin et al., 2021): what counts through a
// side of an image becomes channels, and a layer over channels serves it.
#include <algorithm>
#include <utility>
#include <vector>

#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using Side = Axis::Side;

namespace {

Dimensions swapped(Dimensions dimensions, Side side) {
  for (Axes& axes : dimensions) {
    for (Axis& axis : axes) {
      if (axis.side == side) {
        axis.side = Side::c;
      } else if (is_channel(axis)) {
        axis.side = side;
      }
    }
  }
  return dimensions;
}

}  // namespace

// The same tensor, of a value that has channels in place of a side, and that side in place of
// channels.
Arrangement Part::exchanged(const Arrangement& x, Side side) {
  const bool rows = side == Side::h;
  const auto* before =
      x.value < 0 ? nullptr : std::get_if<plan::ExchangeChannels>(&layers_[x.value].layer);
  // The tensor may be a view of x's: what is written through one of them the other shows.
  const plan::Value value =
      before && before->rows == rows
          ? layers_[x.value].inputs[0]
          : layers_.add_view(x.value, plan::ExchangeChannels{rows}, layers_.dimensions(x.value));
  return layers_.with_known_sides({value, swapped(x.dimensions, side)});
}

// The same tensor, of which dimension d counts through channels; `count` of them, or the plan
// will refuse the sizes.
std::optional<Arrangement> Part::with_channels_at(const Arrangement& x,
                                                  std::size_t d,
                                                  int64_t count) {
  if (shows_channels(x.dimensions[d], x.value)) return x;
  Arrangement row = in_a_row(x);
  const auto side = side_of(row, d);
  if (!side) return unshuffled_pixels(x, d);
  learn_side(row.value, row.dimensions[d], count);
  return exchanged(layers_.with_known_sides(std::move(row)), *side);
}

// As an image, if its dimensions are a value's in another order.
std::optional<plan::Value> Part::as_standard(const Arrangement& x) {
  if (layers_.dimensions(x.value) < 3) return {};
  Arrangement image = x.rank() == 3 ? in_a_row(x) : x;
  const Dimensions whole = layers_.standard(image.value).dimensions;
  if (image.rank() != whole.size()) return {};
  // As few as do it, of those that make every order out of any.
  static const std::vector<std::vector<Side>> kWays = {
      {Side::w}, {Side::h}, {Side::w, Side::h}, {Side::h, Side::w}, {Side::h, Side::w, Side::h}};
  for (const std::vector<Side>& way : kWays) {
    if (x.rank() == 3 && way != kWays.front()) break;
    Dimensions made = image.dimensions, standard = whole;
    for (const Side side : way) {
      made = swapped(std::move(made), side);
      // Where the standard dimensions have the sides' numbers.
      std::swap(standard[1], side == Side::h ? standard[2] : standard.back());
      standard = swapped(std::move(standard), side);
    }
    if (made != standard) continue;
    for (const Side side : way) image = exchanged(image, side);
    return image.value;
  }
  return {};
}

namespace {

// Whether it counts through neighbours of a side, so many of them.
bool is_inner(const Axis& axis, Side side, int64_t count) {
  return axis.side == side && axis.step == 1 && axis.count == count;
}

}  // namespace

// Pixels of squares as channels, in any order of them and of the others, which dimension d
// counts through: pixel_unshuffle by hand, or what Swin merges patches by.
std::optional<Arrangement> Part::unshuffled_pixels(const Arrangement& x, std::size_t d) {
  if (x.rank() != 4 || layers_.dimensions(x.value) != 4 || !layers_.channels(x.value)) return {};
  int64_t factor = 0;
  Dimensions sides(2);  // rows and columns of squares
  for (std::size_t other = 1; other < x.rank(); ++other) {
    const Axes& axes = x.dimensions[other];
    if (other == d) continue;
    if (axes.size() != 1 || axes[0].step < 2 || is_channel(axes[0])) return {};
    if (factor > 0 && axes[0].step != factor) return {};
    factor = axes[0].step;
    sides[axes[0].side == Side::h ? 0 : 1] = axes;
  }
  if (sides[0].empty() || sides[1].empty() || x.dimensions[0] != Axes{{Side::n}}) return {};
  Axes channels = x.dimensions[d];
  for (Axis& axis : channels) {
    if (is_inner(axis, Side::h, factor)) {
      axis = {Side::c, factor, factor};
    } else if (is_inner(axis, Side::w, factor)) {
      axis = {Side::c, 1, factor};
    } else if (is_channel(axis)) {
      axis.step *= factor * factor;
    } else {
      return {};
    }
  }
  Arrangement y = x;
  y.value = layers_.add_view(x.value, plan::PixelUnshuffle{factor}, 4);
  if (count(channels) != layers_.channels(y.value)) return {};
  if (joined({channels}) != layers_.standard(y.value).dimensions[1]) {
    y.value = layers_.select(y.value, places_of(channels));
  }
  const Dimensions whole = layers_.standard(y.value).dimensions;
  y.dimensions[d] = whole[1];
  for (std::size_t other = 1; other < x.rank(); ++other) {
    if (other != d) y.dimensions[other] = whole[x.dimensions[other] == sides[0] ? 2 : 3];
  }
  return y;
}

// Channels as pixels of squares: pixel_shuffle by hand.
std::optional<plan::Value> Part::shuffled_pixels(const Arrangement& x) {
  if (x.rank() != 4 || layers_.dimensions(x.value) != 4) return {};
  const Axes &rows = x.dimensions[2], &columns = x.dimensions[3];
  const Dimensions whole = layers_.standard(x.value).dimensions;
  if (rows.size() != 2 || columns.size() != 2 || Axes{rows[0]} != whole[2] ||
      Axes{columns[0]} != whole[3] || !is_channel(rows[1]) || !is_channel(columns[1]) ||
      rows[1].count != columns[1].count || !layers_.channels(x.value)) {
    return {};
  }
  Arrangement ordered = x;
  Axes& channels = ordered.dimensions[1];
  channels.insert(channels.end(), {rows[1], columns[1]});
  ordered.dimensions = {x.dimensions[0], joined({channels}), whole[2], whole[3]};
  const auto settled = settle(ordered, false);
  if (!settled) return {};
  return layers_.add_view(*settled, plan::PixelShuffle{*rows[1].count}, 4);
}

// The same tensor with channels in the order that another one's dimensions have them in, which
// count through as many.
std::optional<Arrangement> Part::reordered(const Arrangement& x, const Dimensions& like) {
  std::vector<std::pair<int64_t, int64_t>> places{{0, 0}};  // like's, and x's of the same
  for (std::size_t d = 0; d < x.rank(); ++d) {
    const Axes &to = like[d], &from = x.dimensions[d];
    const bool channels = std::all_of(to.begin(), to.end(), is_channel) &&
                          std::all_of(from.begin(), from.end(), is_channel);
    if (to == from && !channels) continue;
    if (!channels || !count(to) || count(to) != count(from)) return {};
    const std::vector<int64_t> there = places_of(to), here = places_of(from);
    std::vector<std::pair<int64_t, int64_t>> finer;
    for (const auto& [a, b] : places) {
      for (std::size_t i = 0; i < here.size(); ++i) finer.emplace_back(a + there[i], b + here[i]);
    }
    places = std::move(finer);
  }
  std::sort(places.begin(), places.end());
  std::vector<int64_t> order;
  for (const auto& [a, b] : places) {
    if (a != static_cast<int64_t>(order.size())) return {};
    order.push_back(b);
  }
  if (layers_.channels(x.value) != static_cast<int64_t>(order.size())) return {};
  return Arrangement{layers_.select(x.value, std::move(order)), like};
}

// Of two tensors that an elementwise operator is to meet, one may have channels where the other
// has a side, or in another order: that one's are moved that has others in its last dimension,
// or in more steps.
void Part::align(Arrangement& a, Arrangement& b) {
  const auto differ = [&](std::size_t d) { return !broadcasts(a.dimensions[d], b.dimensions[d]); };
  const auto first = [&] {
    std::size_t d = 0;
    while (d < a.rank() && !differ(d)) ++d;
    return d;
  };
  if (first() == a.rank()) return;
  if (layers_.dimensions(a.value) != layers_.dimensions(b.value)) {
    a = in_a_row(std::move(a));
    b = in_a_row(std::move(b));
    if (first() == a.rank()) return;
  }
  const auto last = [&](const Arrangement& x) {
    return shows_channels(x.dimensions.back(), x.value);
  };
  const bool keeps_a = last(a) || !last(b);
  const Arrangement& kept = keeps_a ? a : b;
  Arrangement& other = keeps_a ? b : a;
  for (std::size_t d = first(); d < a.rank(); ++d) {
    if (!differ(d) || !shows_channels(kept.dimensions[d], kept.value)) continue;
    if (const auto side = side_of(other, d)) other = exchanged(other, *side);
    return;
  }
  const auto steps = [](const Arrangement& x) {
    std::size_t sum = 0;
    for (const Axes& axes : x.dimensions) sum += axes.size();
    return sum;
  };
  Arrangement& moved = steps(a) > steps(b) ? a : b;
  if (auto in_order = reordered(moved, (&moved == &a ? b : a).dimensions)) {
    moved = *std::move(in_order);
  }
}

}  // namespace convship::ops::lowering
