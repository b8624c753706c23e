// Images to classes.
#include <ATen/ops/cat.h>
#include <ATen/ops/softmax.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <numeric>

#include "guard.h"
#include "model_impl.h"

namespace convship::runtime {
namespace {

// Images per call of the network: enough to fill the caches' worth of work,
// few enough that their inputs stay small (32 of 224 x 224 are 19 MB).
constexpr std::size_t kImagesAtOnce = 32;

std::vector<Prediction> best(const at::Tensor& row,
                             const std::vector<std::string>& labels,
                             int top_k) {
  const std::span<const float> values(row.const_data_ptr<float>(),
                                      static_cast<std::size_t>(row.numel()));
  std::vector<std::int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  const auto shown = std::min(values.size(), static_cast<std::size_t>(top_k));
  // Equal probabilities keep the order of the classes, as torch.sort(stable) does.
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
  });
  std::vector<Prediction> predictions;
  for (std::size_t i = 0; i < shown; ++i) {
    const auto index = static_cast<std::size_t>(order[i]);
    predictions.push_back({labels.at(index), order[i], values[index]});
  }
  return predictions;
}

// One tensor where the network takes batches and the images came out alike.
std::vector<at::Tensor> batched(std::vector<at::Tensor> inputs, const TensorInfo& expected) {
  const bool any_batch =
      expected.shape && !expected.shape->empty() && expected.shape->front() == TensorInfo::kAnySize;
  const bool alike = std::all_of(inputs.begin(), inputs.end(), [&](const at::Tensor& each) {
    return each.sizes() == inputs.front().sizes();
  });
  if (inputs.size() < 2 || !any_batch || !alike) return inputs;
  return {at::cat(inputs)};
}

}  // namespace

at::Tensor probabilities_of(const at::Tensor& logits) {
  return at::softmax(logits.to(at::kFloat), 1);
}

void LoadedModel::require_classifier() const {
  if (manifest && manifest->classifier) return;
  throw Error(
      ErrorCode::usage,
      name + (manifest ? ": the file holds no preprocessing and labels, so it cannot classify "
                         "images; export it with preprocess= and labels="
                       : ": a plain TorchScript file holds no preprocessing and labels, so it "
                         "cannot classify images; export it with convship"));
}

std::vector<std::vector<Prediction>> LoadedModel::predict(const Images& images, int top_k) const {
  require_classifier();
  if (top_k < 1) {
    throw Error(ErrorCode::usage, "top_k must be at least 1, got " + std::to_string(top_k));
  }
  const c10::InferenceMode inference;
  std::vector<std::vector<Prediction>> answers;
  for (std::size_t begin = 0; begin < images.count; begin += kImagesAtOnce) {
    std::vector<at::Tensor> inputs;
    for (std::size_t i = begin; i < std::min(begin + kImagesAtOnce, images.count); ++i) {
      // What preprocessing refuses is this image's failure.
      inputs.push_back(guarded(ErrorCode::image, images.name(i),
                               [&] { return network->preprocess(images.pixels(i)); }));
    }
    for (const at::Tensor& input : batched(std::move(inputs), manifest->inputs.at(0))) {
      const auto outputs = network->forward({input});
      const at::Tensor rows = probabilities_of(outputs.at(0).second).contiguous();
      for (std::int64_t row = 0; row < rows.size(0); ++row) {
        answers.push_back(best(rows[row], manifest->labels, top_k));
      }
    }
  }
  return answers;
}

AtStages LoadedModel::stages_of_pixels(at::Tensor pixels) const {
  const c10::InferenceMode inference;
  AtStages stages;
  stages.pixels = std::move(pixels);
  stages.preprocessed = network->preprocess(stages.pixels);
  stages.outputs = network->forward({stages.preprocessed});
  stages.probabilities = probabilities_of(stages.outputs.at(0).second);
  return stages;
}

}  // namespace convship::runtime
