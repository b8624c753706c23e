// A loaded model as model.cpp and its siblings see it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "backend.h"
#include "convert.h"
#include "images/decode.h"

namespace convship {

namespace runtime {

struct AtStages {
  at::Tensor pixels;        // uint8 [1, 3, H, W]
  at::Tensor preprocessed;  // float32 [1, C, S, S]
  NamedAtTensors outputs;
  at::Tensor probabilities;  // float32 [1, classes]
};

// Many images that are made one at a time, so that only the network's small
// inputs are held together.
struct Images {
  std::size_t count = 0;
  std::function<at::Tensor(std::size_t)> pixels;  // uint8 [1, 3, H, W]
  std::function<std::string(std::size_t)> name;   // for messages
};

struct LoadedModel {
  std::string name;  // the path, for messages
  ModelFile file;
  Log log;
  std::string manifest_json;
  std::optional<Manifest> manifest;  // empty for a plain TorchScript file
  std::vector<TensorInfo> inputs;
  std::vector<std::byte> goldens;
  std::unique_ptr<NetworkBackend> network;
  std::vector<LoadStage> stages;  // of load

  // Throws Error(usage) unless images can be classified.
  void require_classifier() const;
  std::vector<std::vector<Prediction>> predict(const Images& images, int top_k) const;
  NamedAtTensors run(const std::vector<NamedView>& inputs) const;
  PlanReport plan(const std::vector<NamedView>& inputs) const;
  // Calls the network on zeros where it leaves no trace, so that the first call of a user is
  // not slower than the next ones.
  void prepare() const;
  void warm_up(std::int64_t batch) const;
  AtStages stages_of_pixels(at::Tensor pixels) const;

 private:
  // The first input whose sizes the file does not tell; null: it tells all but the batch.
  const TensorInfo* unsized() const;
  std::vector<Tensor> zeros(std::int64_t batch) const;
  // As users do, for no answer: the network, and where it classifies an image.
  void run_on(const std::vector<Tensor>& inputs) const;
  void classify_zeros() const;
};

// Checks the file, then loads it.
LoadedModel load_model(std::vector<std::byte> bytes,
                       const Options& options,
                       const std::string& name,
                       LoadTimes& times);

// uint8 [1, 3, H, W]
at::Tensor pixels_of(images::Image image);
// As above, from the caller's memory. Throws Error(usage), `subject` in front.
at::Tensor pixels_of(const PixelView& view, const std::string& subject);
// float32 [N, classes]
at::Tensor probabilities_of(const at::Tensor& logits);

// "float32 [2, N]", for messages.
std::string describe(DType dtype, std::span<const std::int64_t> shape);

std::vector<Check> selftest(const LoadedModel& model);

}  // namespace runtime

class Model::Impl : public runtime::LoadedModel {
 public:
  explicit Impl(runtime::LoadedModel loaded) : runtime::LoadedModel(std::move(loaded)) {}
};

}  // namespace convship
