#include "ops/lowering/layers.h"

#include <algorithm>
#include <memory>
#include <variant>

namespace convship::ops::lowering {

plan::Value Layers::add(plan::Layer layer, std::vector<plan::Value> inputs, int64_t dimensions) {
  const auto made = static_cast<plan::Value>(layers_.size());
  layers_.push_back({std::move(layer), std::move(inputs), made});
  dimensions_[made] = dimensions;
  return made;
}

plan::Value Layers::add_view(plan::Value of, plan::Layer layer, int64_t dimensions) {
  const plan::Value made = add(std::move(layer), {of}, dimensions);
  share(made, of);
  return made;
}

plan::Value Layers::add_like(plan::Value like, plan::Layer layer, std::vector<plan::Value> inputs) {
  const plan::Value made = add(std::move(layer), std::move(inputs), dimensions(like));
  sides_[made] = sides(like);
  return made;
}

plan::Value Layers::select(plan::Value value, std::vector<int64_t> from) {
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
  return add_like(value,
                  plan::Select{std::make_shared<const std::vector<int64_t>>(std::move(from))},
                  std::move(inputs));
}

plan::Value Layers::source(plan::Value value) const {
  while (value >= 0) value = layers_[value].inputs[0];
  return value;
}

Arrangement Layers::standard(plan::Value x) const {
  const plan::Pair known = sides(x);
  const auto whole = [](Axis::Side side, std::optional<int64_t> count) {
    return count == 1 ? Axes{} : Axes{{side, 1, count}};
  };
  const auto if_known = [](int64_t side) { return side > 0 ? std::optional(side) : std::nullopt; };
  const int64_t rank = dimensions(x);
  Arrangement all{x, {whole(Axis::Side::n, {}), whole(Axis::Side::c, channels(x))}};
  if (rank == 4) all.dimensions.push_back(whole(Axis::Side::h, if_known(known.h)));
  if (rank >= 3) all.dimensions.push_back(whole(Axis::Side::w, if_known(known.w)));
  return all;
}

Axes Layers::side(plan::Value value, Axis::Side side) const {
  const Dimensions whole = standard(value).dimensions;
  return whole[side == Axis::Side::h ? 2 : whole.size() - 1];
}

std::optional<int64_t> Layers::channels(plan::Value value) const {
  if (value < 0) return {};
  if (const auto known = channels_.find(value); known != channels_.end()) return known->second;
  const auto count = count_channels(value);
  channels_.emplace(value, count);
  return count;
}

std::optional<int64_t> Layers::count_channels(plan::Value value) const {
  const plan::Instruction& i = layers_[value];
  if (const auto* conv = std::get_if<plan::Convolve>(&i.layer)) return conv->shape.c_out;
  if (const auto* linear = std::get_if<plan::Linear>(&i.layer)) return linear->out;
  if (const auto* affine = std::get_if<plan::Affine>(&i.layer)) return affine->scale->size();
  if (const auto* norm = std::get_if<plan::Normalize>(&i.layer)) return norm->scale->size();
  if (const auto* by = std::get_if<plan::CombineNumbers>(&i.layer)) return by->numbers->size();
  if (const auto* conv = std::get_if<plan::TransposedConvolve>(&i.layer)) return conv->c_out;
  if (const auto* shuffle = std::get_if<plan::PixelShuffle>(&i.layer)) {
    const auto before = channels(i.inputs[0]);
    const int64_t pixels = shuffle->factor * shuffle->factor;
    return before ? std::optional(*before / pixels) : std::nullopt;
  }
  if (const auto* unshuffle = std::get_if<plan::PixelUnshuffle>(&i.layer)) {
    const auto before = channels(i.inputs[0]);
    return before ? std::optional(*before * unshuffle->factor * unshuffle->factor) : std::nullopt;
  }
  if (const auto* select = std::get_if<plan::Select>(&i.layer)) return select->from->size();
  if (std::holds_alternative<plan::AcrossChannels>(i.layer)) return 1;
  if (const auto* exchange = std::get_if<plan::ExchangeChannels>(&i.layer)) {
    const plan::Pair before = sides(i.inputs[0]);
    const int64_t side = exchange->rows ? before.h : before.w;
    return side > 0 ? std::optional(side) : std::nullopt;
  }
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

std::optional<plan::Pair> Layers::image(plan::Value value) const {
  const plan::Pair known = sides(value);
  return known.h > 0 && known.w > 0 ? std::optional(known) : std::nullopt;
}

plan::Pair Layers::sides(plan::Value value) const {
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
    const auto constant = [](const plan::Measure& m) { return m.rule ? 0 : m.constant; };
    if (const auto* pool = std::get_if<plan::AdaptivePool>(&layer)) {
      return learn({constant(pool->height), constant(pool->width)});
    }
    if (const auto* unflatten = std::get_if<plan::Unflatten>(&layer)) {
      return learn(unflatten->image);
    }
    if (const auto* combine = std::get_if<plan::CombineImage>(&layer)) {
      return learn(combine->image);
    }
    if (const auto* reshape = std::get_if<plan::ReshapePixels>(&layer)) {
      return learn({constant(reshape->height), constant(reshape->width)});
    }
    if (const auto* exchange = std::get_if<plan::ExchangeChannels>(&layer)) {
      const plan::Value from = layers_[value].inputs[0];
      plan::Pair made = sides(from);
      (exchange->rows ? made.h : made.w) = channels(from).value_or(0);
      return learn(made);
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
                          std::holds_alternative<plan::CombineNumbers>(layer) ||
                          std::holds_alternative<plan::Normalize>(layer) ||
                          std::holds_alternative<plan::Attend>(layer);
    if (!same && !by_pixel) return known;
  }
}

void Layers::learn_sides(plan::Value value, plan::Pair sides) {
  channels_.clear();  // of matrices they may follow from sides
  plan::Pair& known = sides_[value];
  if (sides.h > 0) known.h = sides.h;
  if (sides.w > 0) known.w = sides.w;
}

Arrangement Layers::with_known_sides(Arrangement what) const {
  const plan::Pair known = sides(what.value);
  const int64_t all = channels(what.value).value_or(0);
  for (Axes& axes : what.dimensions) {
    for (Axis& axis : axes) {
      const int64_t side = axis.side == Axis::Side::c   ? all
                           : axis.side == Axis::Side::h ? known.h
                           : axis.side == Axis::Side::w ? known.w
                                                        : 0;
      if (side > 0 && !axis.count) axis.count = side / axis.step;
    }
    axes = joined({axes});
  }
  return what;
}

bool Layers::is_shared(plan::Value value) const {
  return base_.count(value) > 0 || shown_.count(value) > 0 ||
         std::any_of(base_.begin(), base_.end(),
                     [&](const auto& view) { return view.second == value; });
}

plan::Value Layers::root(plan::Value value) const {
  for (auto view = base_.find(value); view != base_.end(); view = base_.find(value)) {
    value = view->second;
  }
  return value;
}

std::pair<plan::Value, int64_t> Layers::origin(plan::Value value, int64_t channel) const {
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

}  // namespace convship::ops::lowering
