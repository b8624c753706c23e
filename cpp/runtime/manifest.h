// The manifest of a shipped model, as python/convship/bundle.py writes it.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace convship::runtime {

struct Manifest {
  bool classifier = false;          // labels, preprocess and predict are there
  std::vector<std::string> inputs;  // names, in the order of forward's arguments
  std::vector<std::string> outputs;
  std::vector<std::string> labels;
  std::vector<std::string> required_ops;     // "convship::conv_pool2d", ...
  std::map<std::string, double> tolerances;  // of outputs, by name
  double probabilities_tolerance = 0;
  int goldens = 0;
};

// Throws Error(model) for anything but a manifest of a version this build reads.
Manifest parse_manifest(const std::string& json, const std::string& name);

}  // namespace convship::runtime
