#include <ATen/ScalarOps.h>
#include <ATen/core/ivalue.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/api/module.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>

#include "backend.h"
#include "freeze.h"
#include "interpreter.h"
#include "ops/lowering/lower.h"
#include "read_torchscript.h"

namespace convship::runtime {
namespace {

// One level of a flattened name: the key itself at the top, joined by dots below.
std::string join(const std::string& prefix, const std::string& key) {
  return prefix.empty() ? key : prefix + "." + key;
}

std::string join_index(const std::string& prefix, std::size_t index) {
  return prefix.empty() ? "output_" + std::to_string(index) : prefix + "." + std::to_string(index);
}

std::string key_text(const c10::IValue& key) {
  return key.isString() ? key.toStringRef() : c10::str(key);
}

// Same order and names as bundle.flatten in Python.
void flatten(const c10::IValue& value, const std::string& prefix, NamedAtTensors& out) {
  if (value.isTensor()) {
    out.emplace_back(prefix.empty() ? "output" : prefix, value.toTensor());
  } else if (value.isTuple()) {
    const auto& tuple = value.toTupleRef();
    const auto schema = tuple.type() ? tuple.type()->schema() : nullptr;
    for (std::size_t i = 0; i < tuple.size(); ++i) {
      const bool named = schema != nullptr;
      flatten(tuple.elements()[i],
              named ? join(prefix, schema->arguments()[i].name()) : join_index(prefix, i), out);
    }
  } else if (value.isList()) {
    const auto list = value.toListRef();
    for (std::size_t i = 0; i < list.size(); ++i) flatten(list[i], join_index(prefix, i), out);
  } else if (value.isGenericDict()) {
    for (const auto& item : value.toGenericDict()) {
      flatten(item.value(), join(prefix, key_text(item.key())), out);
    }
  } else if (value.isScalar()) {
    out.emplace_back(prefix.empty() ? "output" : prefix, at::scalar_to_tensor(value.toScalar()));
  } else if (!value.isNone()) {
    throw std::runtime_error("output '" + prefix + "' is a " + value.tagKind() +
                             ", only tensors, numbers, tuples, lists and dicts can be returned");
  }
}

// Where nothing depends on them.
constexpr plan::Pair kUsualSides{224, 224};

// Of images; nothing where they are not known.
std::optional<plan::Pair> sides_of(at::IntArrayRef shape) {
  if (shape.size() != 4) return kUsualSides;
  if (shape[2] < 1 || shape[3] < 1) return {};
  return plan::Pair{shape[2], shape[3]};
}

std::optional<plan::Pair> told_sides(const Manifest* manifest) {
  if (!manifest || manifest->inputs.empty() || !manifest->inputs[0].shape) return {};
  return sides_of(*manifest->inputs[0].shape);
}

class TorchScriptBackend final : public NetworkBackend {
 public:
  struct Calls {
    bool keep_state, pure;
  };

  // Backend::convship plans at once where the manifest tells the sides of images, else for
  // those of the first call.
  TorchScriptBackend(torch::jit::Module module,
                     const Calls& calls,
                     const Manifest* manifest,
                     Backend backend)
      : module_(std::move(module)),
        rounds_freely_(manifest != nullptr && manifest->precision == "bfloat16"),
        pure_(calls.pure),
        backend_(backend) {
    if (const auto sides = told_sides(manifest)) {
      std::call_once(planned_, [&] { plan_for(*sides); });
    }
    if (calls.keep_state) state_ = std::make_unique<std::mutex>();
    if (manifest != nullptr && manifest->outputs.size() == 1)
      output_name_ = manifest->outputs[0].name;
  }

  std::vector<std::string> input_names() const override {
    std::vector<std::string> names;
    const auto& arguments = module_.get_method("forward").function().getSchema().arguments();
    for (std::size_t i = 1; i < arguments.size(); ++i) names.push_back(arguments[i].name());
    return names;
  }

  NamedAtTensors forward(std::vector<at::Tensor> inputs) const override {
    std::call_once(planned_, [&] {
      const auto shape = inputs.empty() ? at::IntArrayRef() : inputs[0].sizes();
      plan_for(sides_of(shape).value_or(kUsualSides));
    });
    NamedAtTensors outputs;
    if (whole_) {
      const c10::InferenceMode inference;
      outputs.emplace_back(output_name_.empty() ? "output" : output_name_,
                           std::move(whole_->run(inputs).front()));
      return outputs;
    }
    flatten(call("forward", {inputs.begin(), inputs.end()}), "", outputs);
    if (outputs.size() == 1 && !output_name_.empty()) outputs[0].first = output_name_;
    return outputs;
  }

  bool is_pure() const override { return pure_; }

  PlanReport plan(const std::vector<at::Tensor>& inputs) const override {
    PlanReport report{false, {}, {}};
    constexpr int kCalls = 11;
    std::vector<std::vector<double>> times;
    for (int i = 0; i < kCalls; ++i) {
      ops::Recording recording;
      forward(inputs);
      times.resize(recording.steps.size());
      report.steps.resize(recording.steps.size());
      for (std::size_t k = 0; k < times.size(); ++k) {
        times[k].push_back(recording.steps[k].milliseconds);
        report.steps[k].name = recording.steps[k].step;
      }
    }
    for (std::size_t k = 0; k < times.size(); ++k) {
      std::nth_element(times[k].begin(), times[k].begin() + kCalls / 2, times[k].end());
      report.steps[k].milliseconds = times[k][kCalls / 2];
    }
    // Sizes that a plan does not take are LibTorch's.
    report.whole = whole_ && !report.steps.empty();
    report.left_to_libtorch = left_;
    return report;
  }

  at::Tensor preprocess(const at::Tensor& images) const override {
    return call("preprocess", {images}).toTensor();
  }

 private:
  void plan_for(plan::Pair sides) const {
    if (backend_ != Backend::convship) return;
    const c10::InferenceMode inference;
    ops::Lowered lowered = ops::lower(module_, rounds_freely_, sides);
    left_ = std::move(lowered.left);
    if (lowered.whole) whole_ = lowered.parts.front();
  }

  c10::IValue call(const char* method, std::vector<c10::IValue> arguments) const {
    const c10::InferenceMode inference;
    if (!module_.find_method(method)) {
      throw Error(ErrorCode::usage, std::string("the model has no method '") + method +
                                        "'; export it with preprocessing and labels");
    }
    const std::unique_lock lock =
        state_ ? std::unique_lock(*state_) : std::unique_lock<std::mutex>();
    return call_method(module_, method, std::move(arguments), backend_);
  }

  // These change once, when forward is planned.
  mutable std::once_flag planned_;
  mutable torch::jit::Module module_;
  mutable c10::intrusive_ptr<ops::Planned> whole_;  // forward, where a plan serves all of it
  mutable std::vector<std::pair<std::string, int>> left_;
  bool rounds_freely_;
  std::unique_ptr<std::mutex> state_;  // calls take turns where the network writes to itself
  std::string output_name_;
  bool pure_;
  Backend backend_;
};

}  // namespace

std::unique_ptr<NetworkBackend> load_torchscript(const Archive& archive,
                                                 const Manifest* manifest,
                                                 Backend backend,
                                                 LoadTimes& times) {
  const c10::InferenceMode inference;
  torch::jit::Module module = read_torchscript(archive.bytes);
  times.mark("parse");
  torch::jit::Module frozen = freeze_network(module);
  TorchScriptBackend::Calls calls{keeps_state(frozen, "forward"), is_pure(frozen, "forward")};
  if (frozen.find_method("preprocess")) calls.pure = calls.pure && is_pure(frozen, "preprocess");
  times.mark("freeze");
  if (backend == Backend::convship) module = std::move(frozen);
  auto network = std::make_unique<TorchScriptBackend>(std::move(module), calls, manifest, backend);
  if (backend == Backend::convship && told_sides(manifest)) times.mark("plan");
  return network;
}

}  // namespace convship::runtime
