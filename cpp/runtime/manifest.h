// The manifest of a shipped model, as python/convship/bundle.py writes it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "convship/model.h"

namespace convship::runtime {

struct Manifest {
  bool classifier = false;         // labels, preprocess and predict are there
  std::vector<TensorInfo> inputs;  // in the order of forward's arguments
  std::vector<TensorInfo> outputs;
  std::vector<std::string> labels;
  std::vector<std::string> required_ops;     // "convship::conv_pool2d", ...
  std::map<std::string, double> tolerances;  // of outputs, by name
  double probabilities_tolerance = 0;
  int goldens = 0;
  std::string torch;  // the version that wrote the file
};

// Throws Error(model) for anything but a manifest of a version this build reads.
Manifest parse_manifest(const std::string& json, const std::string& name);

}  // namespace convship::runtime
