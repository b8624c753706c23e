// Which dimension of a tensor counts through which places of a plan's images: what views,
// permutations and reshapes make of a value, though nothing moves.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "plan/network.h"

namespace convship::ops::lowering {

// Places of one side that are `step` apart.
struct Axis {
  enum class Side { n, c, h, w } side;
  int64_t step = 1;
  std::optional<int64_t> count = {};  // not known: what the side has, divided by the step

  bool operator==(const Axis&) const = default;
};

inline bool is_channel(const Axis& axis) { return axis.side == Axis::Side::c; }

// The last one counts fastest; none of them is one place.
using Axes = std::vector<Axis>;

// One for each dimension of a tensor. Together they count through all of a value.
using Dimensions = std::vector<Axes>;

// A tensor that shows a value of the plan.
struct Arrangement {
  plan::Value value;
  Dimensions dimensions;

  std::size_t rank() const { return dimensions.size(); }
};

// Which of so many dimensions is meant: negative numbers count from behind.
std::optional<std::size_t> place_of(std::optional<int64_t> dimension, std::size_t rank);

// Others in place of the dimensions [first, end).
Dimensions replaced(const Dimensions& dimensions,
                    std::size_t first,
                    std::size_t end,
                    const Dimensions& by);

// How many places they count through; of the second nothing where sizes tell.
int64_t count(const Axes& axes, const plan::Size& size);
std::optional<int64_t> count(const Axes& axes);

// The places that axes of known numbers count through, in their order.
std::vector<int64_t> places_of(const Axes& axes);

// Those of all dimensions from `first` on as of one dimension. What adjoins is one axis.
Axes joined(const Dimensions& dimensions, std::size_t first = 0);

// Whether an elementwise operator meets the same places of two values, or of one that has
// one place where the other has many.
bool broadcasts(const Axes& a, const Axes& b);

// A dimension that a reshape asks for.
struct Target {
  std::optional<int64_t> number;  // -1: what the others leave; nothing: sizes tell
  bool batch = false;             // that number is known to be the images'
  int64_t factors = 1;            // of such a number: of so many sides it is likely a product
};

// What a reshape makes of dimensions; nothing where it is not clear. Where numbers are not
// known it is a guess, right if they turn out to be `count`'s and steps divide their sides: the
// first that fits.
std::optional<Dimensions> reshape(const Dimensions& dimensions,
                                  const std::vector<Target>& targets,
                                  const std::function<bool(const Dimensions&)>& fits);

// The same where it is known how many places each of the axes has, and each dimension is to
// have. A number that sizes tell stays one where an axis, or the outer part of it, is left.
std::optional<Dimensions> reshape(Axes from,
                                  std::vector<int64_t> places,
                                  const std::vector<int64_t>& numbers);

}  // namespace convship::ops::lowering
