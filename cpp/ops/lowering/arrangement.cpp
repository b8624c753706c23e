#include "ops/lowering/arrangement.h"

#include <algorithm>
#include <utility>

namespace convship::ops::lowering {

namespace {

using Side = Axis::Side;

int64_t extent(Side side, const plan::Size& size) {
  switch (side) {
    case Side::n:
      return size.n;
    case Side::c:
      return size.c;
    case Side::h:
      return size.image.h;
    default:
      return size.image.w;
  }
}

bool is_batch(const Axes& axes) {
  return axes.size() == 1 && axes[0].side == Side::n && axes[0].step == 1;
}

// Puts an axis inside of others, and makes one axis of what adjoins.
void append(Axes& axes, const Axis& inner) {
  if (inner.count == 1) return;
  if (!axes.empty() && inner.count && axes.back().side == inner.side &&
      axes.back().step == inner.step * *inner.count) {
    Axis& outer = axes.back();
    outer.step = inner.step;
    if (outer.count) *outer.count *= *inner.count;
    return;
  }
  axes.push_back(inner);
}

// Takes places from one end of what is left, for one target after the other. splits: a number
// is a part of an axis whose own sizes tell, and not all of it.
class Taking {
 public:
  Taking(Axes left, bool splits) : left_(std::move(left)), splits_(splits) {}

  std::optional<Axes> inner(const Target& target) {
    if (target.batch) return batch(left_.empty() ? Axes{} : Axes{left_.back()}, true);
    if (!target.number) return some(target.factors, true);
    Axes taken;
    for (int64_t need = *target.number; need > 1;) {
      if (left_.empty()) return {};
      Axis& last = left_.back();
      if (last.count && need % *last.count == 0) {
        need /= *last.count;
        take_last(taken);
        continue;
      }
      if (last.count && *last.count % need != 0) return {};
      if (!last.count && take_channels_and_pixels(need, taken)) return taken;
      if (!last.count && last.side == Side::n) return {};
      if (!last.count && !splits_) {
        take_last(taken);
      } else {
        taken.insert(taken.begin(), {last.side, last.step, need});
        last.step *= need;
        if (last.count) *last.count /= need;
      }
      need = 1;
    }
    return taken;
  }

  std::optional<Axes> outer(const Target& target) {
    if (target.batch) return batch(left_.empty() ? Axes{} : Axes{left_.front()}, false);
    if (!target.number) return some(target.factors, false);
    Axes taken;
    for (int64_t need = *target.number; need > 1;) {
      if (left_.empty() || !left_.front().count) return {};
      Axis& first = left_.front();
      const int64_t have = *first.count;
      if (need % have == 0) {
        need /= have;
        taken.push_back(first);
        left_.erase(left_.begin());
      } else if (have % need == 0) {
        *first.count /= need;
        taken.push_back({first.side, first.step * *first.count, need});
        need = 1;
      } else {
        return {};
      }
    }
    return taken;
  }

  Axes rest() { return std::exchange(left_, {}); }

 private:
  void take_last(Axes& taken) {
    taken.insert(taken.begin(), left_.back());
    left_.pop_back();
  }

  std::optional<Axes> batch(const Axes& end, bool last) {
    if (!is_batch(end)) return {};
    left_.erase(last ? left_.end() - 1 : left_.begin());
    return end;
  }

  // Up to so many whose number sizes tell, as the target's.
  std::optional<Axes> some(int64_t unknown, bool last) {
    Axes taken;
    while (unknown > 0) {
      if (left_.empty()) return {};
      const auto at = last ? left_.end() - 1 : left_.begin();
      if (!at->count) --unknown;
      taken.insert(last ? taken.begin() : taken.end(), *at);
      left_.erase(at);
    }
    return taken;
  }

  // Features of a matrix are more often all pixels of all channels than a part of a side.
  bool take_channels_and_pixels(int64_t need, Axes& taken) {
    const auto channels = std::find_if(left_.rbegin(), left_.rend(),
                                       [](const Axis& axis) { return axis.count.has_value(); });
    if (channels == left_.rend() || channels->side != Side::c || need % *channels->count != 0) {
      return false;
    }
    while (!left_.back().count) take_last(taken);
    take_last(taken);
    return true;
  }

  Axes left_;
  bool splits_;
};

// With the target that gets what all others leave.
std::optional<Dimensions> reshape(const Axes& from,
                                  const std::vector<Target>& targets,
                                  std::size_t of_the_rest,
                                  bool splits) {
  Dimensions to(targets.size());
  Taking taking(from, splits);
  for (std::size_t i = 0; i < of_the_rest; ++i) {
    auto axes = taking.outer(targets[i]);
    if (!axes) return {};
    to[i] = *std::move(axes);
  }
  for (std::size_t i = targets.size(); --i > of_the_rest;) {
    auto axes = taking.inner(targets[i]);
    if (!axes) return {};
    to[i] = *std::move(axes);
  }
  to[of_the_rest] = taking.rest();
  const Target& rest = targets[of_the_rest];
  const auto number = count(to[of_the_rest]);
  if (rest.batch && !is_batch(to[of_the_rest])) return {};
  if (rest.number && *rest.number >= 0 && number && *number != *rest.number) return {};
  return to;
}

}  // namespace

std::optional<std::size_t> place_of(std::optional<int64_t> dimension, std::size_t rank) {
  const auto all = static_cast<int64_t>(rank);
  if (!dimension || *dimension < -all || *dimension >= all) return {};
  return static_cast<std::size_t>(*dimension < 0 ? *dimension + all : *dimension);
}

Dimensions replaced(const Dimensions& dimensions,
                    std::size_t first,
                    std::size_t end,
                    const Dimensions& by) {
  const auto at = [&](std::size_t d) {
    return dimensions.begin() + static_cast<std::ptrdiff_t>(d);
  };
  Dimensions all(dimensions.begin(), at(first));
  all.insert(all.end(), by.begin(), by.end());
  all.insert(all.end(), at(end), dimensions.end());
  return all;
}

int64_t count(const Axes& axes, const plan::Size& size) {
  int64_t product = 1;
  for (const Axis& axis : axes) {
    product *= axis.count ? *axis.count : extent(axis.side, size) / axis.step;
  }
  return product;
}

std::optional<int64_t> count(const Axes& axes) {
  int64_t product = 1;
  for (const Axis& axis : axes) {
    if (!axis.count) return {};
    product *= *axis.count;
  }
  return product;
}

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

Axes joined(const Dimensions& dimensions, std::size_t first) {
  Axes all;
  for (std::size_t d = first; d < dimensions.size(); ++d) {
    for (const Axis& axis : dimensions[d]) append(all, axis);
  }
  return all;
}

bool broadcasts(const Axes& a, const Axes& b) {
  const auto same = [](const Axis& x, const Axis& y) {
    return x.side == y.side && x.step == y.step && (!x.count || !y.count || x.count == y.count);
  };
  return a.empty() || b.empty() || std::equal(a.begin(), a.end(), b.begin(), b.end(), same);
}

std::optional<Dimensions> reshape(const Dimensions& dimensions,
                                  const std::vector<Target>& targets,
                                  const std::function<bool(const Dimensions&)>& fits) {
  const Axes from = joined(dimensions);
  std::vector<std::size_t> candidates;  // for what the others leave
  const auto asked =
      std::find_if(targets.begin(), targets.end(), [](const Target& t) { return t.number == -1; });
  const auto is_open = [](const Target& t) { return !t.number && !t.batch; };
  if (asked != targets.end()) {
    candidates = {static_cast<std::size_t>(asked - targets.begin())};
  } else if (std::count_if(targets.begin(), targets.end(), is_open) == 1) {
    const auto open = std::find_if(targets.begin(), targets.end(), is_open);
    candidates = {static_cast<std::size_t>(open - targets.begin())};
  } else {
    for (std::size_t i = 0; i < targets.size(); ++i) candidates.push_back(i);
  }
  // A product may be of sides that are one by now.
  std::vector<Target> single = targets;
  for (Target& target : single) target.factors = 1;
  for (const std::vector<Target>& each : {targets, single}) {
    for (const bool splits : {false, true}) {
      for (const std::size_t candidate : candidates) {
        auto to = reshape(from, each, candidate, splits);
        if (to && fits(*to)) return to;
      }
    }
  }
  return {};
}

std::optional<Dimensions> reshape(Axes from,
                                  std::vector<int64_t> places,
                                  const std::vector<int64_t>& numbers) {
  Dimensions to(numbers.size());
  if (to.empty()) return {};
  for (std::size_t d = numbers.size(); d-- > 0;) {
    int64_t need = numbers[d];
    while (need > 1 && !from.empty()) {
      Axis& last = from.back();
      int64_t& have = places.back();
      if (need % have == 0) {
        need /= have;
        to[d].insert(to[d].begin(), last);
        from.pop_back();
        places.pop_back();
        continue;
      }
      if (have % need != 0) return {};
      to[d].insert(to[d].begin(), {last.side, last.step, need});
      last.step *= need;
      have /= need;
      if (last.count) last.count = have;
      need = 1;
    }
    if (need != 1) return {};
  }
  // Sides of one place, that may have more in other images.
  to.front().insert(to.front().begin(), from.begin(), from.end());
  const bool rest = std::any_of(places.begin(), places.end(), [](int64_t n) { return n != 1; });
  return rest ? std::nullopt : std::optional(std::move(to));
}

}  // namespace convship::ops::lowering
