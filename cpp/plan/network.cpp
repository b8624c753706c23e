#include "plan/network.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <numeric>
#include <utility>

#include "plan/places.h"

namespace convship::plan {

bool operator==(const Size& a, const Size& b) {
  return a.n == b.n && a.c == b.c && a.image.h == b.image.h && a.image.w == b.image.w &&
         a.matrix == b.matrix;
}

bool is_run_of_blocks(const std::vector<int64_t>& from) {
  constexpr auto block = static_cast<std::size_t>(kernels::conv2d::kChannelBlock);
  if (from[0] % kernels::conv2d::kChannelBlock != 0 || from.size() % block != 0) return false;
  return std::adjacent_find(from.begin(), from.end(),
                            [](int64_t a, int64_t b) { return b != a + 1; }) == from.end();
}

const char* layer_name(const Layer& layer) {
  constexpr std::array kNames = {"convolution",
                                 "transposed convolution",
                                 "linear",
                                 "max pool",
                                 "average pool",
                                 "adaptive pool",
                                 "across channels",
                                 "activation",
                                 "round",
                                 "add",
                                 "combine",
                                 "combine with numbers",
                                 "affine",
                                 "layer norm",
                                 "prelu",
                                 "group norm",
                                 "upsample",
                                 "pad",
                                 "pixel shuffle",
                                 "pixel unshuffle",
                                 "softmax",
                                 "concatenate",
                                 "concatenate pixels",
                                 "exchange channels",
                                 "select channels",
                                 "flatten",
                                 "unflatten",
                                 "attention",
                                 "add pixels",
                                 "combine with an image",
                                 "reshape pixels"};
  static_assert(kNames.size() == std::variant_size_v<Layer>);
  return kNames[layer.index()];
}

Value Network::add_input() {
  ++inputs_;
  return values_++;
}

Value Network::add(Layer layer, std::vector<Value> inputs) {
  instructions_.push_back({std::move(layer), std::move(inputs), values_});
  return values_++;
}

namespace {

// Which instruction makes a value and which one is its only reader.
class Uses {
 public:
  Uses(const std::vector<Instruction>& instructions, const std::vector<Value>& outputs, int values)
      : maker_(values, -1), reader_(values, -1), count_(values, 0) {
    for (std::size_t i = 0; i < instructions.size(); ++i) {
      maker_[instructions[i].output] = static_cast<int>(i);
      for (const Value v : instructions[i].inputs) {
        reader_[v] = static_cast<int>(i);
        ++count_[v];
      }
    }
    for (const Value v : outputs) count_[v] += 2;  // read from outside, too
  }

  int maker(Value v) const { return maker_[v]; }
  int only_reader(Value v) const { return count_[v] == 1 ? reader_[v] : -1; }

 private:
  std::vector<int> maker_, reader_, count_;
};

Activation* activation_of(Layer& layer) {
  if (auto* conv = std::get_if<Convolve>(&layer)) return &conv->activation;
  if (auto* linear = std::get_if<Linear>(&layer)) return &linear->activation;
  if (auto* add = std::get_if<Add>(&layer)) return &add->activation;
  if (auto* combine = std::get_if<Combine>(&layer)) return &combine->activation;
  if (auto* combine = std::get_if<CombineNumbers>(&layer)) return &combine->activation;
  if (auto* affine = std::get_if<Affine>(&layer)) return &affine->activation;
  if (auto* norm = std::get_if<GroupNorm>(&layer)) return &norm->activation;
  if (auto* conv = std::get_if<TransposedConvolve>(&layer)) return &conv->activation;
  return nullptr;
}

// Whether a convolution can count the padding before it as its own.
bool is_of_convolution(const Pad& pad) {
  const auto at_least_none = [](const Measure& m) { return !m.rule && m.constant >= 0; };
  return pad.kind == Pad::Kind::constant && pad.value == 0 && at_least_none(pad.top) &&
         at_least_none(pad.bottom) && at_least_none(pad.left) && at_least_none(pad.right);
}

// Makes the padding the convolution behind it, if that can do both.
bool become(Instruction& one, const Instruction& reader) {
  const auto* pad = std::get_if<Pad>(&one.layer);
  const auto* conv = std::get_if<Convolve>(&reader.layer);
  if (!pad || !conv || reader.inputs.size() > 1 || !is_of_convolution(*pad)) return false;
  Convolve both = *conv;
  both.padding.h += pad->top.constant;
  both.padding.w += pad->left.constant;
  both.more_padding.h += pad->bottom.constant - pad->top.constant;
  both.more_padding.w += pad->right.constant - pad->left.constant;
  one.layer = std::move(both);
  return true;
}

// Takes the reader of `one`'s output into it, if its kernel does both.
bool absorb(Instruction& one,
            const Instruction& reader,
            const Uses& uses,
            int place,
            const std::vector<Size>& sizes) {
  if (become(one, reader)) return true;
  auto* conv = std::get_if<Convolve>(&one.layer);
  Activation* activation = activation_of(one.layer);
  if (const auto* next = std::get_if<Activate>(&reader.layer)) {
    if (!activation || *activation != Activation::none ||
        (conv && conv->pooled && !is_monotone(next->activation))) {
      return false;
    }
    *activation = next->activation;
    return true;
  }
  if (conv && conv->pooled) return false;
  if (const auto* add = std::get_if<Add>(&reader.layer)) {
    const Value other = reader.inputs[0] == one.output ? reader.inputs[1] : reader.inputs[0];
    const bool sums = conv || std::holds_alternative<Affine>(one.layer) ||
                      std::holds_alternative<GroupNorm>(one.layer);
    if (!sums || *activation != Activation::none || one.inputs.size() > 1 || other == one.output ||
        uses.maker(other) >= place || !(sizes[other] == sizes[one.output])) {
      return false;
    }
    *activation = add->activation;
    one.inputs.push_back(other);
    return true;
  }
  if (!conv) return false;
  if (const auto* pool = std::get_if<MaxPool>(&reader.layer)) {
    if (!is_monotone(conv->activation) || one.inputs.size() > 1) return false;
    conv->pooled = true;
    conv->pool = pool->windows;
    return true;
  }
  return false;
}

}  // namespace

void Network::drop_unread() {
  std::vector<bool> read(values_, false);
  for (const Value v : outputs_) read[v] = true;
  std::vector<Instruction> kept;
  for (auto i = instructions_.rbegin(); i != instructions_.rend(); ++i) {
    if (!read[i->output]) continue;
    for (const Value v : i->inputs) read[v] = true;
    kept.push_back(std::move(*i));
  }
  instructions_.assign(std::make_move_iterator(kept.rbegin()),
                       std::make_move_iterator(kept.rend()));
}

// Networks whose sides may be odd have it between layers that one kernel does.
void Network::drop_empty_padding(const std::vector<Size>& sizes) {
  std::vector<Value> same(values_);
  std::iota(same.begin(), same.end(), 0);
  for (Instruction& i : instructions_) {
    for (Value& v : i.inputs) v = same[v];
    const bool leaves = std::count(outputs_.begin(), outputs_.end(), i.output) > 0;
    if (std::holds_alternative<Pad>(i.layer) && !leaves && alias_channel(i, sizes) == 0) {
      same[i.output] = i.inputs[0];
    }
  }
}

void Network::fuse(const std::vector<Size>& inputs) {
  const std::vector<Size> sizes = infer_sizes(*this, inputs);
  unfused_ = instructions_;
  drop_empty_padding(sizes);
  drop_unread();
  for (bool changed = true; changed;) {
    changed = false;
    const Uses uses(instructions_, outputs_, values_);
    for (std::size_t i = 0; i < instructions_.size() && !changed; ++i) {
      const int reader = uses.only_reader(instructions_[i].output);
      if (reader < 0) continue;
      Instruction& one = instructions_[i];
      if (!absorb(one, instructions_[reader], uses, static_cast<int>(i), sizes)) continue;
      one.output = instructions_[reader].output;
      instructions_.erase(instructions_.begin() + reader);
      changed = true;
    }
  }
}

}  // namespace convship::plan
