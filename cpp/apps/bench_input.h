// What the network is fed with while it is measured.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convship/model.h"

namespace convship::apps {

struct BenchInput {
  int batch = 1;
  std::string size;                // "224", "28x28", "1x28x28"; empty: what the manifest says
  std::vector<std::string> files;  // NAME=FILE.npy; empty: numbers of our own

  // Throws Error(usage) where sizes are neither in the manifest nor given.
  std::vector<NamedTensor> make(const Model& model, const std::string& path) const;
};

}  // namespace convship::apps
