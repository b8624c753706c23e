#include "plan/places.h"

#include <algorithm>
#include <numeric>

namespace convship::plan {
namespace {

constexpr int64_t kBlock = kernels::conv2d::kChannelBlock;

// A value as some channels of another one's memory.
struct Part {
  int root;  // a value, or values + number of an imported input
  int64_t channel = 0;
};

class Finder {
  using Where = Place::Where;

 public:
  Finder(const Network& network, const std::vector<Size>& sizes, const MicroBatch& micro_batch)
      : network_(network),
        sizes_(sizes),
        micro_batch_(micro_batch),
        part_(network.values() + network.inputs(), Part{-1}),
        readers_(network.values(), 0),
        maker_(network.values(), -1) {
    const auto& instructions = network.instructions();
    for (std::size_t i = 0; i < instructions.size(); ++i) {
      maker_[instructions[i].output] = static_cast<int>(i);
      for (const Value v : instructions[i].inputs) ++readers_[v];
    }
  }

  Places find() {
    for (auto i = network_.instructions().rbegin(); i != network_.instructions().rend(); ++i) {
      if (std::holds_alternative<Concatenate>(i->layer)) share(*i);
    }
    for (int v = 0; v < static_cast<int>(part_.size()); ++v) {
      if (part_[v].root < 0) part_[v] = {v};
    }
    for (const Instruction& i : network_.instructions()) {
      const auto channel = alias_channel(i, sizes_);
      if (!channel) continue;
      part_[i.output] = part_[stored(i.inputs[0])];
      part_[i.output].channel += *channel;
    }
    Places places;
    places.values.resize(network_.values());
    places.imported.resize(network_.inputs(), Place{Where::memory, -1, 0});
    find_lives();
    place_roots(places);
    return places;
  }

 private:
  // Imported inputs follow the values.
  int stored(Value v) const { return v < network_.inputs() ? network_.values() + v : v; }

  bool can_move(Value v) const {
    return maker_[v] >= 0 && part_[v].root < 0 &&
           !alias_channel(network_.instructions()[maker_[v]], sizes_);
  }

  void share(const Instruction& cat) {
    Part& whole = part_[cat.output];
    // All parts lie side by side already: an earlier, shorter concatenation.
    const Part first = cat.inputs[0] < network_.inputs() ? Part{-1} : part_[cat.inputs[0]];
    if (whole.root < 0 && first.root >= 0) {
      bool adjoin = true;
      int64_t channel = first.channel;
      for (const Value v : cat.inputs) {
        adjoin = adjoin && part_[v].root == first.root && part_[v].channel == channel;
        channel += sizes_[v].c;
      }
      if (adjoin) {
        whole = first;
        return;
      }
    }
    if (whole.root < 0) whole = {cat.output};
    int64_t channel = whole.channel;
    for (const Value v : cat.inputs) {
      if (channel % kBlock == 0 && can_move(v)) part_[v] = {whole.root, channel};
      channel += sizes_[v].c;
    }
  }

  struct Life {
    int first = 1 << 30, last = -1;
    bool overlaps(const Life& other) const { return first <= other.last && other.first <= last; }
    void include(int at) {
      first = std::min(first, at);
      last = std::max(last, at);
    }
  };

  void find_lives() {
    lives_.assign(part_.size(), {});
    const auto& instructions = network_.instructions();
    const int end = static_cast<int>(instructions.size());
    for (int i = 0; i < end; ++i) {
      lives_[part_[instructions[i].output].root].include(i);
      for (std::size_t k = 0; k < instructions[i].inputs.size(); ++k) {
        const Value v = instructions[i].inputs[k];
        lives_[part_[v].root].include(i);
        const bool in_place = k == 0 && std::holds_alternative<Convolve>(instructions[i].layer);
        if (v < network_.inputs() && !in_place) {
          lives_[stored(v)].include(-1);
          lives_[stored(v)].include(i);
        }
      }
    }
    for (const Value v : network_.outputs()) {
      lives_[part_[v].root].include(end);
      if (v < network_.inputs()) {
        lives_[stored(v)].include(-1);
        lives_[stored(v)].include(end);
      }
    }
  }

  const Size& size_of(int root) const {
    return sizes_[root < network_.values() ? root : root - network_.values()];
  }

  // Made by a kernel that writes any layout, read by nobody but the caller.
  bool straight_to_output(Value v) const {
    const auto& outputs = network_.outputs();
    if (readers_[v] > 0 || part_[v].root != v || std::count(outputs.begin(), outputs.end(), v) != 1)
      return false;
    const Layer& layer = network_.instructions()[maker_[v]].layer;
    return std::holds_alternative<Linear>(layer) ||
           (std::holds_alternative<Convolve>(layer) &&
            network_.instructions()[maker_[v]].inputs.size() == 1);
  }

  void place_roots(Places& places) {
    const auto& outputs = network_.outputs();
    std::vector<int> roots;
    for (int v = 0; v < static_cast<int>(lives_.size()); ++v) {
      if (part_[v].root != v || lives_[v].last < 0 || v < network_.inputs()) continue;
      if (v < network_.values() && straight_to_output(v)) continue;
      roots.push_back(v);
    }
    std::vector<int64_t> at(lives_.size(), -1);
    places.memory = place(roots, Where::memory, at);
    places.micro_batch = place(roots, Where::micro_batch, at);
    for (Value v = 0; v < network_.values(); ++v) {
      const Part part = part_[v];
      if (v < network_.inputs()) {
        places.values[v] = {Where::input, v, 0};
        if (at[stored(v)] >= 0) {
          places.imported[v] = {where(stored(v)), at[stored(v)], image_floats(sizes_[v])};
        }
      } else if (part.root == v && at[v] < 0) {
        const auto found = std::find(outputs.begin(), outputs.end(), v);
        places.values[v] = {Where::output, found - outputs.begin(), 0};
      } else {
        places.values[v] = {where(part.root),
                            at[part.root] + part.channel * size_of(part.root).pixels(),
                            image_floats(size_of(part.root))};
      }
    }
  }

  // Nobody needs it when the micro-batch is through.
  Where where(int root) const {
    return lives_[root].last < micro_batch_.instructions ? Where::micro_batch : Where::memory;
  }

  // Places the roots of one kind of memory, and tells how much they take.
  int64_t place(std::vector<int> roots, Where kind, std::vector<int64_t>& at) const {
    std::erase_if(roots, [&](int root) { return where(root) != kind; });
    // Large ones first, each at the lowest free place.
    std::stable_sort(roots.begin(), roots.end(),
                     [&](int a, int b) { return floats(a) > floats(b); });
    std::vector<int> placed;
    int64_t memory = 0;
    for (const int root : roots) {
      int64_t offset = 0;
      for (bool moved = true; moved;) {
        moved = false;
        for (const int other : placed) {
          const bool collide = lives_[root].overlaps(lives_[other]) &&
                               offset < at[other] + floats(other) &&
                               at[other] < offset + floats(root);
          if (collide) {
            offset = at[other] + floats(other);
            moved = true;
          }
        }
      }
      at[root] = offset;
      placed.push_back(root);
      memory = std::max(memory, offset + floats(root));
    }
    return memory;
  }

  int64_t floats(int root) const {
    const int64_t images = where(root) == Where::memory ? size_of(root).n : micro_batch_.images;
    return images * image_floats(size_of(root));
  }

  const Network& network_;
  const std::vector<Size>& sizes_;
  const MicroBatch micro_batch_;
  std::vector<Part> part_;
  std::vector<int> readers_;
  std::vector<int> maker_;
  std::vector<Life> lives_;
};

}  // namespace

int64_t image_floats(const Size& size) {
  return (size.c + kBlock - 1) / kBlock * kBlock * size.pixels();
}

std::optional<int64_t> alias_channel(const Instruction& i, const std::vector<Size>& sizes) {
  if (std::holds_alternative<Flatten>(i.layer) && sizes[i.inputs[0]].pixels() == 1) return 0;
  if (std::holds_alternative<Unflatten>(i.layer) && sizes[i.output].pixels() == 1) return 0;
  if (std::holds_alternative<ReshapePixels>(i.layer)) return 0;
  // Padding of none, as networks have it whose sides may be odd.
  const auto* pad = std::get_if<Pad>(&i.layer);
  if (pad && sizes[i.output] == sizes[i.inputs[0]] && pad->top(sizes) == 0 &&
      pad->left(sizes) == 0) {
    return 0;
  }
  const auto* select = std::get_if<Select>(&i.layer);
  if (select && i.inputs.size() == 1 && is_run_of_blocks(*select->from))
    return select->from->front();
  return {};
}

Places find_places(const Network& network,
                   const std::vector<Size>& sizes,
                   const MicroBatch& micro_batch) {
  return Finder(network, sizes, micro_batch).find();
}

}  // namespace convship::plan
