// A loaded model as model.cpp and selftest.cpp see it.
#pragma once

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

struct LoadedModel {
  std::string name;  // the path, for messages
  std::string manifest_json;
  std::optional<Manifest> manifest;  // empty for a plain TorchScript file
  std::vector<std::byte> goldens;
  std::unique_ptr<NetworkBackend> network;

  // Throws Error(usage) unless images can be classified.
  void require_classifier() const;
  std::vector<Prediction> predict(const at::Tensor& pixels, int top_k) const;
  NamedAtTensors run(const std::vector<NamedView>& inputs) const;
  AtStages stages_of_pixels(at::Tensor pixels) const;
};

// uint8 [1, 3, H, W]
at::Tensor pixels_of(images::Image image);
// float32 [N, classes]
at::Tensor probabilities_of(const at::Tensor& logits);

std::vector<Check> selftest(const LoadedModel& model);

}  // namespace runtime

class Model::Impl : public runtime::LoadedModel {};

}  // namespace convship
