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

// Where pieces of `size` channels end; the last may be smaller.
std::vector<int64_t> ends_every(int64_t size, int64_t count) {
  std::vector<int64_t> ends;
  for (int64_t end = size; end < count; end += size) ends.push_back(end);
  ends.push_back(count);
  return ends;
}

}  // namespace

bool Part::channel_shuffle(Node* node) {
  const auto groups = constant_int(node->input(1));
  const auto x = inner(node->input(0), 4);
  if (!x || !groups || *groups < 1) return false;
  const auto count = layers_.channels(*x);
  if (!count || *count % *groups != 0) return false;
  bind(node->output(), layers_.select(*x, shuffled(*count, *groups)), 4);
  return true;
}

// A dimension that counts through channels and nothing else, through all of them or not.
struct Part::Cut {
  Arrangement tensor;
  std::size_t dimension;
  int64_t count;
  bool all;
};

std::optional<Part::Cut> Part::to_cut(const Node* node, std::size_t dimension) const {
  auto x = arranged(node->input(0));
  const auto over = constant_int(node->input(dimension));
  const auto d = x ? place_of(over, x->rank()) : std::nullopt;
  if (!d) return {};
  const Axes& axes = x->dimensions[*d];
  if (shows_channels(axes, x->value)) {
    const auto all = layers_.channels(x->value);
    return all ? std::optional(Cut{*std::move(x), *d, *all, true}) : std::nullopt;
  }
  if (axes.size() != 1 || !is_channel(axes[0]) || !axes[0].count) return {};
  const int64_t some = *axes[0].count;
  return Cut{*std::move(x), *d, some, false};
}

// Some of them, as a view.
std::optional<Arrangement> Part::piece_of(const Cut& what,
                                          kernels::conv2d::Range range,
                                          int64_t step) {
  if (!what.all && step == 1) {
    return some_of_channels(what.tensor, what.dimension, range, false);
  }
  if (!what.all) {  // every so many, of a dimension that counts through those between them first
    if (range.begin >= step || range.end != what.count || what.count % step != 0) return {};
    const Axis axis = what.tensor.dimensions[what.dimension][0];
    const Axes outer{{axis.side, axis.step * step, what.count / step}};
    const Axes inner{{axis.side, axis.step, step}};
    const Arrangement split{what.tensor.value, replaced(what.tensor.dimensions, what.dimension,
                                                        what.dimension + 1, {outer, inner})};
    return some_of_channels(split, what.dimension + 1, {range.begin, range.begin + 1}, true);
  }
  std::vector<int64_t> from;
  for (int64_t c = range.begin; c < range.end; c += step) from.push_back(c);
  Arrangement piece = what.tensor;
  piece.value = layers_.select(piece.value, std::move(from));
  layers_.share(piece.value, what.tensor.value);
  piece.dimensions[what.dimension] = layers_.standard(piece.value).dimensions[1];
  return piece;
}

// The input's channels up to each of `ends`, as a list of views.
bool Part::cut(Node* node, const Cut& what, const std::vector<int64_t>& ends) {
  Pieces pieces;
  int64_t begin = 0;
  for (const int64_t end : ends) {
    auto piece = piece_of(what, {begin, end});
    if (!piece) return false;
    pieces.push_back(*std::move(piece));
    begin = end;
  }
  facts_.learn(node->output(), std::move(pieces));
  return true;
}

bool Part::chunk(Node* node) {
  const auto what = to_cut(node, 2);
  const auto chunks = constant_int(node->input(1));
  if (!what || !chunks || *chunks < 1 || *chunks > kMostPlaces) return false;
  return cut(node, *what, ends_every((what->count + *chunks - 1) / *chunks, what->count));
}

bool Part::split(Node* node) {
  const auto what = to_cut(node, 2);
  if (!what) return split_pixels(node);
  if (const auto size = facts_.number(node->input(1))) {
    return *size > 0 && cut(node, *what, ends_every(*size, what->count));
  }
  const auto sizes = constant_ints(node->input(1));
  if (!sizes || sizes->empty()) return false;
  std::vector<int64_t> ends;
  int64_t end = 0;
  for (const int64_t size : *sizes) {
    if (size < 1 || size > what->count - end) return false;
    ends.push_back(end += size);
  }
  return end == what->count && cut(node, *what, ends);
}

// The first half of the channels times the sigmoid of the others.
bool Part::glu(Node* node) {
  const auto what = to_cut(node, 1);
  if (!what || what->count % 2 != 0) return false;
  auto values = piece_of(*what, {0, what->count / 2});
  const auto gates = piece_of(*what, {what->count / 2, what->count});
  if (!values || !gates) return false;
  const plan::Value open = layers_.add_like(
      gates->value, plan::Activate{kernels::conv2d::Activation::sigmoid}, {gates->value});
  values->value =
      layers_.add_like(values->value, plan::Combine{How::multiply}, {values->value, open});
  show(node->output(), *std::move(values));
  return true;
}

// Of a dimension that counts through some of the channels.
bool Part::unbind(Node* node) {
  const auto x = arranged(node->input(0));
  const auto over = constant_int(node->input(1));
  const auto d = x ? place_of(over, x->rank()) : std::nullopt;
  if (!d) return false;
  const Axes& axes = x->dimensions[*d];
  const auto among = count(axes);
  if (!among || !std::all_of(axes.begin(), axes.end(), is_channel)) {
    return false;
  }
  Pieces pieces;
  for (int64_t i = 0; i < *among; ++i) {
    auto piece = some_of_channels(*x, *d, {i, i + 1}, true);
    if (!piece) return false;
    pieces.push_back(*std::move(piece));
  }
  facts_.learn(node->output(), std::move(pieces));
  return true;
}

// input, dimension, begin, end, step
bool Part::slice(Node* node) {
  constexpr std::size_t kOfTensor = 5, kOfList = 4;  // inputs
  if (node->inputs().size() == kOfList) return slice_list(node);
  if (node->inputs().size() != kOfTensor) return false;
  const auto x = arranged(node->input(0));
  const auto over = constant_int(node->input(1));
  const auto d = x ? place_of(over, x->rank()) : std::nullopt;
  if (!d) return false;
  const bool from_first = is_none(node->input(2)) || constant_int(node->input(2)) == 0;
  const bool to_last = is_none(node->input(3)) ||
                       constant_int(node->input(3)) == std::numeric_limits<int64_t>::max();
  const auto step = constant_int(node->input(4));
  if (from_first && to_last && step == 1) return identity(node, 0);
  const auto what = to_cut(node, 1);
  if (!what) return slice_pixels(node, *x, *d);
  const auto kept = facts_.slice(node, 2, what->count);
  if (!kept || kept->begin >= kept->end || !step || *step < 1) return false;
  if (kept->begin == 0 && kept->end == what->count && *step == 1) return identity(node, 0);
  auto piece = piece_of(*what, *kept, *step);
  return piece && show_again(node, *std::move(piece));
}

// The side of the value's images that a dimension counts through, all of it.
std::optional<Axis::Side> Part::side_of(const Arrangement& x, std::size_t dimension) const {
  const Axes& axes = x.dimensions[dimension];
  const int64_t dimensions = layers_.dimensions(x.value);
  if (axes.size() != 1 || dimensions < 3) return {};
  if (dimensions == 4 && axes == layers_.side(x.value, Axis::Side::h)) return Axis::Side::h;
  const bool is_width = axes == layers_.side(x.value, Axis::Side::w);
  return is_width ? std::optional(Axis::Side::w) : std::nullopt;
}

// Of rows or columns: every so many are the maxima of windows of one pixel.
bool Part::slice_pixels(Node* node, Arrangement x, std::size_t dimension) {
  using Side = Axis::Side;
  x = in_a_row(std::move(x));
  const auto side = side_of(x, dimension);
  const auto begin = is_none(node->input(2)) ? 0 : facts_.number(node->input(2));
  const auto end = is_none(node->input(3))
                       ? std::optional(Formula(c10::IValue(std::numeric_limits<int64_t>::max())))
                       : facts_.formula(node->input(3));
  const auto step = constant_int(node->input(4));
  if (!side || !begin || !end || !step || *step < 1) return false;
  const plan::Measure all = measure(Formula(Extent{x.value, x.dimensions[dimension]}));
  x.value = crop(x.value, *side, {*begin}, measure(*end));
  if (*begin >= 0 && end->integer() == *begin + 1) {  // one, if there are as many
    require([all, least = *begin](const auto& sizes) { return all(sizes) > least; });
    layers_.learn_sides(x.value, *side == Side::h ? plan::Pair{1, 0} : plan::Pair{0, 1});
  }
  if (*step > 1) {
    const bool rows = *side == Side::h;
    const plan::Pair known = layers_.sides(x.value);
    const plan::Pair stride = rows ? plan::Pair{*step, 1} : plan::Pair{1, *step};
    x.value = layers_.add_view(x.value, plan::MaxPool{{{1, 1}, stride, {0, 0}, false}},
                               layers_.dimensions(x.value));
    layers_.learn_sides(x.value, rows ? plan::Pair{0, known.w} : plan::Pair{known.h, 0});
  }
  x.dimensions[dimension] = layers_.side(x.value, *side);
  return show_again(node, std::move(x));
}

// Rows or columns, into as many as given numbers say.
bool Part::split_pixels(Node* node) {
  const auto given = arranged(node->input(0));
  const auto sizes = facts_.numbers(node->input(1));
  if (!given || !sizes || sizes->empty()) return false;
  const auto d = place_of(constant_int(node->input(2)), given->rank());
  if (!d) return false;
  const Arrangement x = in_a_row(*given);
  const auto side = side_of(x, *d);
  if (!side) return false;
  std::vector<plan::Measure> parts;
  for (const Formula& size : *sizes) parts.push_back(measure(size));
  // Of the first so many.
  const auto sum = [parts](std::size_t count) {
    return plan::Measure{0, [parts, count](const std::vector<plan::Size>& all) {
                           int64_t total = 0;
                           for (std::size_t i = 0; i < count; ++i) {
                             const int64_t part = parts[i](all);
                             if (part < 0 || part > kMostPlaces - total) return kMostPlaces;
                             total += part;
                           }
                           return total;
                         }};
  };
  const plan::Measure whole = measure(Formula(Extent{x.value, x.dimensions[*d]}));
  require([whole, total = sum(parts.size())](const std::vector<plan::Size>& all) {
    return whole(all) == total(all);
  });
  Pieces pieces;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Arrangement piece = x;
    piece.value = crop(x.value, *side, sum(i), sum(i + 1));
    piece.dimensions[*d] = layers_.side(piece.value, *side);
    pieces.push_back(std::move(piece));
  }
  facts_.learn(node->output(), std::move(pieces));
  return true;
}

bool Part::concatenate(Node* node) {
  if (const auto* pieces = facts_.find<Pieces>(node->input(0))) return concatenate(node, *pieces);
  const auto* list = facts_.find<Tensors>(node->input(0));
  if (!list || list->empty()) return false;
  const auto first =
      std::find_if(list->begin(), list->end(), [&](Value* v) { return arranged(v).has_value(); });
  if (first == list->end()) return false;
  const int64_t rank = static_cast<int64_t>(arranged(*first)->rank());
  std::vector<Arrangement> tensors;
  for (Value* value : *list) {
    if (facts_.find<Repeated>(value)) return add_pixels(node, *list);
    if (!arranged(value) && !tensor(value, rank)) return false;
    tensors.push_back(*arranged(value));
  }
  return concatenate(node, tensors);
}

bool Part::concatenate(Node* node, const std::vector<Arrangement>& tensors) {
  const auto over = constant_int(node->input(1));
  if (tensors.empty()) return false;
  Arrangement whole = tensors.front();
  const auto place = place_of(over, whole.rank());
  if (!place) return false;
  const std::size_t d = *place;
  const Axes& among = whole.dimensions[d];
  const bool of_channels = std::all_of(among.begin(), among.end(), is_channel);
  if (!among.empty() && of_channels && !shows_channels(among, whole.value)) {
    if (!are_alike(tensors)) return false;
    whole = stacked(tensors, d);
    const Axes joint = joined({whole.dimensions[d], whole.dimensions[d + 1]});
    whole.dimensions = replaced(whole.dimensions, d, d + 2, {joint});
    show(node->output(), std::move(whole));
    return true;
  }
  std::vector<plan::Value> inputs;
  for (const Arrangement& tensor : tensors) {
    if (tensor.rank() != whole.rank()) return false;
    if (!shows_channels(tensor.dimensions[d], tensor.value)) {
      return concatenate_pixels(node, tensors, d);
    }
    if (layers_.dimensions(tensor.value) != layers_.dimensions(whole.value)) return false;
    for (std::size_t other = 0; other < whole.rank(); ++other) {
      if (other != d && !broadcasts(tensor.dimensions[other], whole.dimensions[other])) {
        return false;
      }
    }
    inputs.push_back(tensor.value);
  }
  whole.value = layers_.add_like(whole.value, plan::Concatenate{}, std::move(inputs));
  whole.dimensions[d] = layers_.standard(whole.value).dimensions[1];
  show(node->output(), std::move(whole));
  return true;
}

// Along rows or columns, or in a row where images have but one of either; some may have one
// place there.
bool Part::concatenate_pixels(Node* node, std::vector<Arrangement> tensors, std::size_t dimension) {
  std::optional<Axis::Side> side;
  Arrangement whole{};
  for (Arrangement& x : tensors) {
    if (x.dimensions[dimension].empty()) continue;
    if (layers_.dimensions(x.value) < 3) return false;
    x = in_a_row(std::move(x));
    const auto own = side_of(x, dimension);
    if (!own || (side && own != side)) return false;
    if (!side) whole = x;
    side = own;
  }
  if (!side) return false;
  const bool rows = *side == Axis::Side::h;
  std::vector<plan::Value> inputs;
  for (const Arrangement& x : tensors) {
    for (std::size_t d = 0; d < whole.rank(); ++d) {
      if (d != dimension && !broadcasts(x.dimensions[d], whole.dimensions[d])) return false;
    }
    const bool one = x.dimensions[dimension].empty();
    const plan::Value image = one ? as_image(x.value) : x.value;
    const plan::Pair known = layers_.sides(image);
    if (one && (rows ? known.h : known.w) != 1) return false;
    if (!one && layers_.dimensions(image) != layers_.dimensions(whole.value)) return false;
    inputs.push_back(image);
  }
  const plan::Pair known = layers_.sides(whole.value);
  whole.value = layers_.add(plan::ConcatenatePixels{rows}, std::move(inputs),
                            layers_.dimensions(whole.value));
  layers_.learn_sides(whole.value, rows ? plan::Pair{0, known.w} : plan::Pair{known.h, 0});
  whole.dimensions[dimension] = layers_.side(whole.value, *side);
  show(node->output(), std::move(whole));
  return true;
}

}  // namespace convship::ops::lowering
