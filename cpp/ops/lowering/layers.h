// The layers that a part has so far, and what is known of the values that they make.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ops/lowering/arrangement.h"
#include "plan/network.h"

namespace convship::ops::lowering {

// In the order in which they run. What they make is numbered from 0 on, inputs of the part from
// -1 down.
class Layers {
 public:
  // What it makes, as a tensor of so many dimensions.
  plan::Value add(plan::Layer layer, std::vector<plan::Value> inputs, int64_t dimensions);
  // In other dimensions, whose memory may be the value's.
  plan::Value add_view(plan::Value of, plan::Layer layer, int64_t dimensions);
  // Of an image as large as another value's.
  plan::Value add_like(plan::Value like, plan::Layer layer, std::vector<plan::Value> inputs);
  // Channels of a value in a new order, read from where they were made.
  plan::Value select(plan::Value value, std::vector<int64_t> from);
  plan::Layer& last() { return layers_.back().layer; }

  const plan::Instruction& operator[](plan::Value made) const { return layers_[made]; }
  std::size_t size() const { return layers_.size(); }
  auto begin() const { return layers_.begin(); }
  auto end() const { return layers_.end(); }
  // The input of the part that it comes from, by each layer's first input, which tells how many
  // images there are.
  plan::Value source(plan::Value value) const;

  // Of a tensor that shows the value as it is.
  int64_t dimensions(plan::Value value) const { return dimensions_.at(value); }
  void set_dimensions(plan::Value value, int64_t number) { dimensions_[value] = number; }
  Arrangement standard(plan::Value value) const;
  // All of a side, rows or columns, of what has images or rows.
  Axes side(plan::Value value, Axis::Side side) const;

  // Where weights tell.
  std::optional<int64_t> channels(plan::Value value) const;
  plan::Pair sides(plan::Value value) const;  // 0: not known
  // The size of images that have it whatever the input's.
  std::optional<plan::Pair> image(plan::Value value) const;
  // Though no layer tells; 0: nothing new.
  void learn_sides(plan::Value value, plan::Pair sides);
  Arrangement with_known_sides(Arrangement what) const;

  // The view shows memory of the other value.
  void share(plan::Value view, plan::Value of) { base_[view] = of; }
  // By views with other dimensions.
  void mark_shown(plan::Value value) { shown_.insert(value); }
  // Whether others show the value's memory, or it another's.
  bool is_shared(plan::Value value) const;
  plan::Value root(plan::Value value) const;  // whose memory it shows

 private:
  std::optional<int64_t> count_channels(plan::Value value) const;
  std::pair<plan::Value, int64_t> origin(plan::Value value, int64_t channel) const;

  std::vector<plan::Instruction> layers_;
  std::unordered_map<plan::Value, int64_t> dimensions_;
  std::unordered_map<plan::Value, plan::Pair> sides_;
  std::unordered_map<plan::Value, plan::Value> base_;
  std::unordered_set<plan::Value> shown_;
  // What was found out: there may be any number of ways from a value to those it is made of.
  mutable std::unordered_map<plan::Value, std::optional<int64_t>> channels_;
};

}  // namespace convship::ops::lowering
