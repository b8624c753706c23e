// What a model format must be able to do; one *_backend.cpp per format.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "archive.h"
#include "convship/model.h"
#include "load_times.h"
#include "manifest.h"

namespace convship::runtime {

using NamedAtTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Safe to call from many threads at once. Throws c10::Error and std::exception,
// which model.cpp turns into convship::Error.
class NetworkBackend {
 public:
  virtual ~NetworkBackend() = default;

  // Names of forward's arguments, in order.
  virtual std::vector<std::string> input_names() const = 0;
  // `inputs` in the order of input_names(); outputs flattened and named.
  virtual NamedAtTensors forward(std::vector<at::Tensor> inputs) const = 0;
  // Whether forward and preprocess leave no trace, so that they may be called for no answer.
  virtual bool is_pure() const = 0;
  // What forward does for these inputs; see Model::plan.
  virtual PlanReport plan(const std::vector<at::Tensor>& inputs) const = 0;
  // uint8 [N, 3, H, W] to the network's input.
  virtual at::Tensor preprocess(const at::Tensor& images) const = 0;
};

// `manifest` is null for a plain TorchScript file.
std::unique_ptr<NetworkBackend> load_torchscript(const Archive& archive,
                                                 const Manifest* manifest,
                                                 Backend backend,
                                                 LoadTimes& times);

// Of a checked .pt2 file, whose native code this loads into the process.
std::unique_ptr<NetworkBackend> load_aotinductor(const Archive& archive,
                                                 const Manifest& manifest,
                                                 Backend backend,
                                                 LoadTimes& times);

}  // namespace convship::runtime
