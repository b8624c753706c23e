#include "plan/plan.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "kernels/conv2d/cut.h"
#include "plan/steps.h"

namespace convship::plan {
namespace {

class Builder {
 public:
  Builder(const Network& network, const std::vector<Size>& sizes, const Places& places)
      : network_(network), sizes_(sizes), places_(places) {}

  // For some instructions on so many images; before the first come the inputs, behind the
  // last the outputs.
  std::vector<Step> build(std::size_t begin, std::size_t end, int64_t images) {
    images_ = images;
    for (Value v = 0; begin == 0 && v < network_.inputs(); ++v) {
      if (places_.imported[v].offset >= 0) steps_.push_back(import_step(direct(v), operand(v)));
    }
    const auto& instructions = network_.instructions();
    for (std::size_t i = begin; i < end; ++i) add(instructions[i]);
    if (end == instructions.size()) export_outputs();
    return std::exchange(steps_, {});
  }

 private:
  Operand direct(Value v) const { return operand(places_.values[v], v); }
  // In memory; an input as its copy there.
  Operand operand(Value v) const {
    return v < network_.inputs() ? operand(places_.imported[v], v) : direct(v);
  }

  Operand operand(const Place& place, Value v) const {
    Size size = sizes_[v];
    if (images_ > 0) size.n = images_;
    return {place, size};
  }

  void export_outputs() {
    for (std::size_t k = 0; k < network_.outputs().size(); ++k) {
      const Operand from = operand(network_.outputs()[k]);
      const Place to{Place::Where::output, static_cast<int64_t>(k), 0};
      if (from.place.where == Place::Where::output) continue;
      steps_.push_back(export_step(from, {to, from.size}));
    }
  }

  void add(const Instruction& i) {
    if (alias_channel(i, sizes_)) return;
    const Operand y = direct(i.output);
    const auto x = [&](std::size_t k) { return operand(i.inputs[k]); };
    const Operand second = i.inputs.size() > 1 ? x(1) : Operand{};
    const Operand* const residual = i.inputs.size() > 1 ? &second : nullptr;
    if (const auto* conv = std::get_if<Convolve>(&i.layer)) {
      steps_.push_back(convolve_step(*conv, direct(i.inputs[0]), residual, y));
    } else if (const auto* transposed = std::get_if<TransposedConvolve>(&i.layer)) {
      steps_.push_back(transposed_step(*transposed, x(0), y));
    } else if (const auto* linear = std::get_if<Linear>(&i.layer)) {
      steps_.push_back(linear_step(*linear, x(0), y));
    } else if (const auto* max = std::get_if<MaxPool>(&i.layer)) {
      steps_.push_back(max_pool_step(*max, x(0), y));
    } else if (const auto* average = std::get_if<AveragePool>(&i.layer)) {
      steps_.push_back(average_pool_step(*average, x(0), y));
    } else if (const auto* adaptive = std::get_if<AdaptivePool>(&i.layer)) {
      steps_.push_back(adaptive_pool_step(*adaptive, x(0), y));
    } else if (const auto* across = std::get_if<AcrossChannels>(&i.layer)) {
      steps_.push_back(across_step(*across, x(0), y));
    } else if (const auto* activate = std::get_if<Activate>(&i.layer)) {
      steps_.push_back(activate_step(*activate, x(0), y));
    } else if (const auto* round = std::get_if<Round>(&i.layer)) {
      steps_.push_back(round_step(*round, x(0), y));
    } else if (const auto* sum = std::get_if<Add>(&i.layer)) {
      steps_.push_back(add_step(*sum, x(0), x(1), y));
    } else if (const auto* combine = std::get_if<Combine>(&i.layer)) {
      steps_.push_back(combine_step(*combine, x(0), x(1), y));
    } else if (const auto* numbers = std::get_if<CombineNumbers>(&i.layer)) {
      steps_.push_back(combine_numbers_step(*numbers, x(0), y));
    } else if (const auto* affine = std::get_if<Affine>(&i.layer)) {
      steps_.push_back(affine_step(*affine, x(0), residual, y));
    } else if (const auto* norm = std::get_if<Normalize>(&i.layer)) {
      steps_.push_back(normalize_step(*norm, x(0), y));
    } else if (const auto* slope = std::get_if<Slope>(&i.layer)) {
      steps_.push_back(slope_step(*slope, x(0), y));
    } else if (const auto* groups = std::get_if<GroupNorm>(&i.layer)) {
      steps_.push_back(group_norm_step(*groups, x(0), residual, y));
    } else if (const auto* upsample = std::get_if<Upsample>(&i.layer)) {
      steps_.push_back(upsample_step(*upsample, x(0), y));
    } else if (const auto* pad = std::get_if<Pad>(&i.layer)) {
      steps_.push_back(pad_step(*pad, {pad->top(sizes_), pad->left(sizes_)}, x(0), y));
    } else if (const auto* shuffle = std::get_if<PixelShuffle>(&i.layer)) {
      steps_.push_back(pixel_shuffle_step(*shuffle, x(0), y));
    } else if (const auto* unshuffle = std::get_if<PixelUnshuffle>(&i.layer)) {
      steps_.push_back(pixel_unshuffle_step(*unshuffle, x(0), y));
    } else if (const auto* softmax = std::get_if<Softmax>(&i.layer)) {
      steps_.push_back(softmax_step(*softmax, x(0), y));
    } else if (std::holds_alternative<Flatten>(i.layer)) {
      steps_.push_back(flatten_step(x(0), y));
    } else if (std::holds_alternative<Unflatten>(i.layer)) {
      steps_.push_back(unflatten_step(x(0), y));
    } else if (const auto* attend = std::get_if<Attend>(&i.layer)) {
      steps_.push_back(attend_step(*attend, x(0), x(1), x(2), y));
    } else if (const auto* exchange = std::get_if<ExchangeChannels>(&i.layer)) {
      steps_.push_back(exchange_step(*exchange, x(0), y));
    } else if (const auto* pixels = std::get_if<AddPixels>(&i.layer)) {
      steps_.push_back(add_pixels_step(*pixels, x(0), y));
    } else if (const auto* constant = std::get_if<CombineImage>(&i.layer)) {
      steps_.push_back(combine_image_step(*constant, x(0), y));
    } else if (const auto* select = std::get_if<Select>(&i.layer)) {
      steps_.push_back(select_step(*select, operands(i), y));
    } else if (const auto* pixels = std::get_if<ConcatenatePixels>(&i.layer)) {
      steps_.push_back(concatenate_pixels_step(*pixels, operands(i), y));
    } else {
      concatenate(i, y);
    }
  }

  std::vector<Operand> operands(const Instruction& i) const {
    std::vector<Operand> all;
    for (const Value v : i.inputs) all.push_back(operand(v));
    return all;
  }

  // Copies what was not made in its place.
  void concatenate(const Instruction& i, const Operand& y) {
    int64_t channel = 0;
    for (const Value v : i.inputs) {
      const Operand x = operand(v);
      const int64_t there = y.place.offset + channel * y.size.pixels();
      const bool in_place = channel % kernels::conv2d::kChannelBlock == 0 &&
                            x.place.offset == there && x.place.n_step == y.place.n_step;
      if (!in_place) steps_.push_back(place_channels_step(x, y, channel));
      channel += x.size.c;
    }
  }

  const Network& network_;
  const std::vector<Size>& sizes_;
  const Places& places_;
  int64_t images_ = 0;  // of operands; 0: as they have
  std::vector<Step> steps_;
};

const kernels::InstructionSet& active() {
  return kernels::instruction_set(kernels::active_instruction_set());
}

}  // namespace

bool has_loops() { return active().layers.map != nullptr; }

Plan::Plan(const Network& network,
           std::vector<Size> inputs,
           const std::optional<MicroBatch>& micro_batch)
    : inputs_(std::move(inputs)) {
  const std::vector<Size> sizes = infer_sizes(network, inputs_);
  micro_batch_ = micro_batch ? *micro_batch : choose_micro_batch(network, sizes);
  const Places places = find_places(network, sizes, micro_batch_);
  memory_ = places.memory;
  micro_batch_memory_ = places.micro_batch;
  for (const Value v : network.outputs()) outputs_.push_back(sizes[v]);
  Builder builder(network, sizes, places);
  const std::size_t first = micro_batch_.instructions, all = network.instructions().size();
  if (first > 0) {
    first_ = builder.build(0, first, micro_batch_.images);
    const int64_t last = inputs_[0].n % micro_batch_.images;
    if (last > 0) first_of_last_ = builder.build(0, first, last);
    const int64_t turns = kernels::conv2d::ceil_div(inputs_[0].n, micro_batch_.images);
    for (Step& step : first_) step.name += ", " + std::to_string(turns) + " times";
    if (first == all) return;
  }
  steps_ = builder.build(first, all, 0);
}

Plan::~Plan() = default;

int64_t Plan::turns() const { return first_.empty() ? 0 : inputs_[0].n / micro_batch_.images; }

int64_t Plan::memory(int threads) const {
  return memory_ + std::min<int64_t>(turns(), threads) * micro_batch_memory_;
}

// visit(number, step, frame, share): of the step's time, so much is time of the call.
template <typename Visit>
void Plan::visit(std::span<const kernels::conv2d::View<const float>> inputs,
                 std::span<float* const> outputs,
                 std::span<float> memory,
                 const kernels::Parallel& parallel,
                 const Visit& visit) const {
  Frame frame{inputs, outputs, memory.data(), memory.data() + memory_, parallel, active()};
  const auto take = [&](const std::vector<Step>& steps, std::size_t first, const Frame& one,
                        double share) {
    for (std::size_t i = 0; i < steps.size(); ++i) visit(first + i, steps[i], one, share);
  };
  // A thread for each micro-batch needs no thread to wait in between; what is left over is
  // shared by all.
  const int64_t threads = std::min<int64_t>(parallel.width(), turns());
  const int64_t each = threads > 1 ? turns() / threads : 0;
  const auto room = static_cast<std::size_t>(memory_ + threads * micro_batch_memory_);
  if (memory.size() < room) throw std::logic_error("a plan needs memory for each thread");
  const kernels::Serial serial;
  parallel.run(each > 0 ? threads : 0, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      Frame own{inputs, outputs,  frame.memory, frame.micro_batch + thread * micro_batch_memory_,
                serial, frame.isa};
      for (int64_t turn = thread * each; turn < (thread + 1) * each; ++turn) {
        own.first_image = turn * micro_batch_.images;
        take(first_, 0, own, 1 / static_cast<double>(threads));
      }
    }
  });
  for (int64_t turn = threads * each; turn < turns(); ++turn) {
    frame.first_image = turn * micro_batch_.images;
    take(first_, 0, frame, 1);
  }
  frame.first_image = turns() * micro_batch_.images;
  take(first_of_last_, 0, frame, 1);
  frame.first_image = 0;
  take(steps_, first_.size(), frame, 1);
}

void Plan::run(std::span<const kernels::conv2d::View<const float>> inputs,
               std::span<float* const> outputs,
               std::span<float> memory,
               const kernels::Parallel& parallel) const {
  visit(inputs, outputs, memory, parallel,
        [](std::size_t, const Step& step, const Frame& frame, double) { step.run(frame); });
}

std::vector<Plan::Timing> Plan::profile(std::span<const kernels::conv2d::View<const float>> inputs,
                                        std::span<float* const> outputs,
                                        std::span<float> memory,
                                        const kernels::Parallel& parallel) const {
  std::vector<Timing> timings;
  for (const std::vector<Step>* steps : {&first_, &steps_}) {
    for (const Step& step : *steps) timings.push_back({step.name, 0});
  }
  std::mutex mutex;
  visit(inputs, outputs, memory, parallel,
        [&](std::size_t number, const Step& step, const Frame& frame, double share) {
          const auto start = std::chrono::steady_clock::now();
          step.run(frame);
          const std::chrono::duration<double, std::milli> spent =
              std::chrono::steady_clock::now() - start;
          const std::lock_guard lock(mutex);
          timings[number].milliseconds += share * spent.count();
        });
  return timings;
}

}  // namespace convship::plan
