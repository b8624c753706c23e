// Attention: heads of windows of images, each by itself.
#include <algorithm>
#include <vector>

#include "kernels/conv2d/cut.h"
#include "kernels/layers/tasks.h"
#include "kernels/scratch.h"
#include "plan/steps.h"

namespace convship::plan {
namespace {

using kernels::AttendTask;
using kernels::conv2d::ceil_div;
using kernels::conv2d::kChannelBlock;

int64_t in_whole(int64_t unit, int64_t count) { return ceil_div(count, unit) * unit; }

// What pixels of an image see each other.
struct Grouping {
  Pair size;       // of a window
  Pair windows;    // in a column and in a row of them
  Pair neighbour;  // pixels from a position to the next one below, and beside it
  Pair next;       // pixels from a window to the next one below, and beside it

  Grouping(const Attend& layer, Pair image) : size(window_of(layer, image)) {
    windows = {image.h / size.h, image.w / size.w};
    const Pair apart = layer.dilated ? windows : Pair{1, 1};
    neighbour = {apart.h * image.w, apart.w};
    next = layer.dilated ? Pair{image.w, 1} : Pair{size.h * image.w, size.w};
  }

  int64_t count() const { return windows.h * windows.w; }
  // Of a window, floats from the image's first pixel.
  int64_t corner(int64_t window) const {
    return (window / windows.w * next.h + window % windows.w * next.w) * kChannelBlock;
  }
  // Of each position, floats from the window's first one.
  std::vector<int64_t> places() const {
    std::vector<int64_t> made;
    for (int64_t i = 0; i < size.h; ++i) {
      for (int64_t j = 0; j < size.w; ++j) {
        made.push_back((i * neighbour.h + j * neighbour.w) * kChannelBlock);
      }
    }
    return made;
  }
};

// Memory of one head's loops, for a thread.
class Room {
 public:
  explicit Room(const AttendTask& task)
      : keys_(in_whole(AttendTask::kMostPanel, task.keys)),
        depth_(in_whole(kChannelBlock, task.depth)),
        value_depth_(in_whole(AttendTask::kMostPanel, task.value_depth)),
        floats_(kernels::make_scratch<float>(
            depth_ * keys_ + keys_ * value_depth_ +
            AttendTask::kQueries * (keys_ + kChannelBlock + depth_ + value_depth_))) {}

  void give_to(AttendTask& task) const {
    task.packed_keys = floats_.get();
    task.packed_values = task.packed_keys + depth_ * keys_;
    task.scores = task.packed_values + keys_ * value_depth_;
    task.packed_queries = task.scores + AttendTask::kQueries * (keys_ + kChannelBlock);
    task.results = task.packed_queries + AttendTask::kQueries * depth_;
  }

 private:
  int64_t keys_, depth_, value_depth_;
  kernels::Scratch<float> floats_;
};

std::string name_of(const Attend& layer, const Size& y) {
  const Pair sides = layer.window;
  std::string name = "attention of " + std::to_string(layer.heads);
  name += layer.heads == 1 ? " head" : " heads";
  if (sides.h > 0 || sides.w > 0) {
    const Grouping grouping(layer, y.image);
    name += (layer.dilated ? " in grids of " : " in windows of ") +
            std::to_string(grouping.size.h) + "x" + std::to_string(grouping.size.w);
  }
  return name + ", " + describe(y);
}

class Attention {
 public:
  Attention(
      const Attend& layer, const Operand& q, const Operand& k, const Operand& v, const Operand& y)
      : layer_(layer),
        q_(q),
        k_(k),
        v_(v),
        y_(y),
        grouping_(layer, q.size.image),
        windows_(grouping_.count()),
        queries_(q.size.pixels() / windows_),
        keys_(k.size.pixels() / windows_),
        places_(grouping_.places()) {
    // Those of a whole image serve one of other pixels.
    for (auto i = static_cast<int64_t>(places_.size()); i < keys_; ++i) {
      places_.push_back(i * kChannelBlock);
    }
  }

  void operator()(const Frame& frame) const {
    const int64_t heads = q_.size.n * windows_ * layer_.heads;
    // Each packs all keys for itself, so as few as keep the threads busy.
    const int64_t threads = frame.parallel.width();
    const int64_t most = ceil_div(queries_, AttendTask::kQueries);
    const int64_t parts =
        threads == 1 ? 1 : std::clamp<int64_t>(ceil_div(2 * threads, heads), 1, most);
    const int64_t depths = (q_.size.c + v_.size.c) / layer_.heads;
    // A vector of them at a time.
    const int64_t operations = ceil_div(queries_, parts) * keys_ * depths / 8;
    frame.parallel.run(heads * parts, grain(operations), [&](int64_t begin, int64_t end) {
      AttendTask task = task_of_sizes();
      const Room room(task);
      room.give_to(task);
      for (int64_t i = begin; i < end;) {
        const int64_t part = i % parts, next = std::min(end, i - part + parts);
        task.begin = part * queries_ / parts;
        task.end = (part + next - i) * queries_ / parts;
        run_head(frame, i / parts, task);
        i = next;
      }
    });
  }

 private:
  AttendTask task_of_sizes() const {
    AttendTask task{};
    task.places = places_.data();
    task.keys = keys_;
    task.depth = q_.size.c / layer_.heads;
    task.value_depth = v_.size.c / layer_.heads;
    task.scale = layer_.scale;
    return task;
  }

  void run_head(const Frame& frame, int64_t number, AttendTask& task) const {
    const int64_t head = number % layer_.heads, place = number / layer_.heads;
    const int64_t window = place % windows_, n = place / windows_;
    const auto view = [&](const Operand& x, int64_t depth) -> kernels::HeadView<float> {
      const int64_t c = head * depth;
      return {x.block(frame, n, c / kChannelBlock) + grouping_.corner(window), x.block_step(),
              c % kChannelBlock};
    };
    const auto read = [&](const Operand& x, int64_t depth) -> kernels::HeadView<const float> {
      const kernels::HeadView<float> from = view(x, depth);
      return {from.data, from.block, from.lane};
    };
    task.q = read(q_, task.depth);
    task.k = read(k_, task.depth);
    task.v = read(v_, task.value_depth);
    task.y = view(y_, task.value_depth);
    const bool last = head + 1 == layer_.heads;
    task.padding = last ? y_.blocks() * kChannelBlock - y_.size.c : 0;
    if (const ScoreBias* const bias = layer_.bias.get()) {
      const int64_t of_window = bias->windows == 1 ? 0 : window;
      const int64_t of_head = bias->heads == 1 ? 0 : head;
      task.bias = bias->values.data() + (of_window * bias->heads + of_head) * queries_ * keys_;
      task.bias_end = bias->values.data() + bias->values.size();
    }
    frame.isa.layers.attend(task);
  }

  Attend layer_;
  Operand q_, k_, v_, y_;
  Grouping grouping_;
  int64_t windows_, queries_, keys_;
  std::vector<int64_t> places_;
};

}  // namespace

Step attend_step(
    const Attend& layer, const Operand& q, const Operand& k, const Operand& v, const Operand& y) {
  return {name_of(layer, y.size), Attention(layer, q, k, v, y)};
}

}  // namespace convship::plan
