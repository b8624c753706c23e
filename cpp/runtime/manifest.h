// The manifest of a shipped model, as python/convship/bundle.py writes it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "convship/model.h"

namespace convship::runtime {

// The kind of CPU that native code was compiled for.
struct CompiledFor {
  std::string machine;                // as uname tells it: "x86_64"
  std::vector<std::string> features;  // as /proc/cpuinfo names them: "avx2", ...
};

struct Manifest {
  bool classifier = false;         // labels, preprocess and predict are there
  std::vector<TensorInfo> inputs;  // in the order of forward's arguments
  std::vector<TensorInfo> outputs;
  std::vector<std::string> labels;
  std::vector<std::string> required_ops;     // "convship::conv_pool2d", ...
  std::map<std::string, double> tolerances;  // of outputs, by name
  double probabilities_tolerance = 0;
  int goldens = 0;
  std::optional<CompiledFor> compiled_for;  // of a .pt2 file; a .pt file holds no native code
  std::string torch;                        // the version that wrote the file
  std::string precision = "float32";        // of what layers of weights multiply
};

// Throws Error(model) for anything but a manifest of a version this build reads.
Manifest parse_manifest(const std::string& json, const std::string& name);

}  // namespace convship::runtime
