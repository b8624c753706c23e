#include "plan/plan.h"

#include <chrono>
#include <utility>

#include "plan/steps.h"

namespace convship::plan {
namespace {

class Builder {
 public:
  Builder(const Network& network, const std::vector<Size>& sizes, const Places& places)
      : network_(network), sizes_(sizes), places_(places) {}

  std::vector<Step> build() {
    for (Value v = 0; v < network_.inputs(); ++v) {
      if (places_.imported[v].offset >= 0) steps_.push_back(import_step(direct(v), operand(v)));
    }
    for (const Instruction& i : network_.instructions()) add(i);
    for (std::size_t k = 0; k < network_.outputs().size(); ++k) {
      const Operand from = operand(network_.outputs()[k]);
      const Place to{Place::Where::output, static_cast<int64_t>(k), 0};
      if (from.place.where == Place::Where::output) continue;
      steps_.push_back(export_step(from, {to, from.size}));
    }
    return std::move(steps_);
  }

 private:
  Operand direct(Value v) const { return {places_.values[v], sizes_[v]}; }
  // In memory; an input as its copy there.
  Operand operand(Value v) const {
    return v < network_.inputs() ? Operand{places_.imported[v], sizes_[v]} : direct(v);
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
    } else if (const auto* softmax = std::get_if<Softmax>(&i.layer)) {
      steps_.push_back(softmax_step(*softmax, x(0), y));
    } else if (std::holds_alternative<Flatten>(i.layer)) {
      steps_.push_back(flatten_step(x(0), y));
    } else if (std::holds_alternative<Unflatten>(i.layer)) {
      steps_.push_back(unflatten_step(x(0), y));
    } else if (const auto* select = std::get_if<Select>(&i.layer)) {
      std::vector<Operand> from;
      for (const Value v : i.inputs) from.push_back(operand(v));
      steps_.push_back(select_step(*select, from, y));
    } else {
      concatenate(i, y);
    }
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
  std::vector<Step> steps_;
};

const kernels::InstructionSet& active() {
  return kernels::instruction_set(kernels::active_instruction_set());
}

}  // namespace

bool has_loops() { return active().layers.map != nullptr; }

Plan::Plan(const Network& network, std::vector<Size> inputs) : inputs_(std::move(inputs)) {
  const std::vector<Size> sizes = infer_sizes(network, inputs_);
  const Places places = find_places(network, sizes);
  memory_ = places.memory;
  for (const Value v : network.outputs()) outputs_.push_back(sizes[v]);
  steps_ = Builder(network, sizes, places).build();
}

Plan::~Plan() = default;

void Plan::run(std::span<const kernels::conv2d::View<const float>> inputs,
               std::span<float* const> outputs,
               float* memory,
               const kernels::Parallel& parallel) const {
  const Frame frame{inputs, outputs, memory, parallel, active()};
  for (const Step& step : steps_) step.run(frame);
}

std::vector<Plan::Timing> Plan::profile(std::span<const kernels::conv2d::View<const float>> inputs,
                                        std::span<float* const> outputs,
                                        float* memory,
                                        const kernels::Parallel& parallel) const {
  const Frame frame{inputs, outputs, memory, parallel, active()};
  std::vector<Timing> timings;
  for (const Step& step : steps_) {
    const auto start = std::chrono::steady_clock::now();
    step.run(frame);
    const std::chrono::duration<double, std::milli> spent =
        std::chrono::steady_clock::now() - start;
    timings.push_back({step.name, spent.count()});
  }
  return timings;
}

}  // namespace convship::plan
