// Tensors to tensors.
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>

#include "guard.h"
#include "layout.h"
#include "model_impl.h"

namespace convship::runtime {
namespace {

std::string list_of(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

void check(const NamedView& input) {
  const TensorView& view = input.tensor;
  const std::string subject = "input '" + input.name + "': ";
  const auto bytes = checked_extent(view.dtype, view.shape, view.strides, subject);
  if (view.data == nullptr && bytes > 0) {
    throw Error(ErrorCode::usage, subject + "data must not be a null pointer");
  }
}

// The network's inputs, in its order.
std::vector<at::Tensor> in_order(const std::vector<NamedView>& inputs,
                                 const std::vector<std::string>& names) {
  if (inputs.size() != names.size()) {
    throw Error(ErrorCode::usage, "the network takes " + std::to_string(names.size()) +
                                      " inputs (" + list_of(names) + "), got " +
                                      std::to_string(inputs.size()));
  }
  std::vector<at::Tensor> tensors(names.size());
  for (const NamedView& input : inputs) {
    auto found = std::find(names.begin(), names.end(), input.name);
    if (names.size() == 1) found = names.begin();
    const auto index = static_cast<std::size_t>(found - names.begin());
    if (found == names.end() || tensors[index].defined()) {
      throw Error(ErrorCode::usage, "the network's inputs are " + list_of(names) +
                                        ", each once; got '" + input.name + "'");
    }
    check(input);
    // A copy: networks may write to their inputs, and outputs may be views of them.
    tensors[index] = to_aten(input.tensor).clone();
  }
  return tensors;
}

std::string list_of(const std::vector<TensorInfo>& infos) {
  std::string text;
  for (const TensorInfo& info : infos) {
    if (!info.dtype || !info.shape) continue;
    text += (text.empty() ? "" : ", ") + info.name + " " + describe(*info.dtype, *info.shape);
  }
  return text;
}

// What LibTorch says of a wrong input rarely names it.
[[noreturn]] void fail_network(const LoadedModel& model,
                               const std::vector<NamedView>& inputs,
                               const std::string& reason) {
  std::string got;
  for (const NamedView& input : inputs) {
    got += (got.empty() ? "" : ", ") + input.name + " " +
           describe(input.tensor.dtype, input.tensor.shape);
  }
  const std::string listed = list_of(model.inputs);
  throw Error(ErrorCode::usage,
              model.name + ": the network cannot run on " + got +
                  (listed.empty() ? "" : " (the file was exported with " + listed + ")") + ": " +
                  reason);
}

}  // namespace

std::string describe(DType dtype, std::span<const std::int64_t> shape) {
  std::string text = std::string(name_of(dtype)) + " [";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") +
            (shape[i] == TensorInfo::kAnySize ? std::string("N") : std::to_string(shape[i]));
  }
  return text + "]";
}

NamedAtTensors LoadedModel::run(const std::vector<NamedView>& inputs) const {
  const c10::InferenceMode inference;
  auto tensors = in_order(inputs, network->input_names());
  return explained([&] { return network->forward(std::move(tensors)); },
                   [&](const std::string& reason) { fail_network(*this, inputs, reason); });
}

PlanReport LoadedModel::plan(const std::vector<NamedView>& inputs) const {
  const c10::InferenceMode inference;
  const auto tensors = in_order(inputs, network->input_names());
  return explained([&] { return network->plan(tensors); },
                   [&](const std::string& reason) { fail_network(*this, inputs, reason); });
}

namespace {

// Of one input; empty where the file leaves more open than the batch.
std::optional<std::vector<std::int64_t>> shape_of(const TensorInfo& input, std::int64_t batch) {
  if (!input.dtype || !input.shape) return {};
  auto shape = *input.shape;
  if (!shape.empty() && shape[0] == TensorInfo::kAnySize) shape[0] = batch;
  if (std::count(shape.begin(), shape.end(), TensorInfo::kAnySize) != 0) return {};
  return shape;
}

}  // namespace

const TensorInfo* LoadedModel::unsized() const {
  const auto found = std::find_if(inputs.begin(), inputs.end(),
                                  [](const TensorInfo& input) { return !shape_of(input, 1); });
  return found == inputs.end() ? nullptr : &*found;
}

std::vector<Tensor> LoadedModel::zeros(std::int64_t batch) const {
  std::vector<Tensor> made;
  for (const TensorInfo& input : inputs) {
    made.push_back(from_aten(at::zeros(shape_of(input, batch).value(), options_of(*input.dtype))));
  }
  return made;
}

void LoadedModel::run_on(const std::vector<Tensor>& tensors) const {
  std::vector<NamedView> views;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    views.push_back({inputs[i].name, tensors[i].view()});
  }
  for (const auto& [output, tensor] : run(views)) from_aten(tensor);
}

void LoadedModel::classify_zeros() const {
  if (!manifest || !manifest->classifier) return;
  constexpr std::int64_t kSide = 256;  // of the image; any will do
  predict({1, [](std::size_t) { return at::zeros({1, 3, kSide, kSide}, at::kByte); },
           [](std::size_t) { return std::string("image of zeros"); }},
          1);
}

void LoadedModel::prepare() const {
  if (unsized() != nullptr || !network->is_pure()) return;
  // What fails on zeros may serve what users have; if not, their call tells.
  const auto attempt = [](const auto& call) {
    try {
      call();
    } catch (...) {
    }
  };
  // The second call finds all memory and packed weights; small networks gain by some more, as
  // caches and branch predictors do.
  constexpr int kLeast = 2, kMost = 10;
  constexpr std::chrono::milliseconds kEnough(5);
  const auto start = std::chrono::steady_clock::now();
  for (int call = 0; call < kMost; ++call) {
    if (call >= kLeast && std::chrono::steady_clock::now() - start > kEnough) break;
    attempt([&] { classify_zeros(); });
    attempt([&] { run_on(zeros(1)); });
  }
}

void LoadedModel::warm_up(std::int64_t batch) const {
  if (batch < 1) {
    throw Error(ErrorCode::usage, "batch must be at least 1, got " + std::to_string(batch));
  }
  if (const TensorInfo* input = unsized()) {
    throw Error(ErrorCode::usage, name + ": the file does not tell the size of input '" +
                                      input->name + "'; warm up by calling run");
  }
  // Backend::libtorch looks at the first call, optimises in the second and is settled
  // from the third on.
  constexpr int kCalls = 3;
  const auto inputs = zeros(batch);
  for (int call = 0; call < kCalls; ++call) {
    classify_zeros();
    run_on(inputs);
  }
}

}  // namespace convship::runtime
