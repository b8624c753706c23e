// A loaded model under the name that clients use, and what it answers.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "convship/model.h"
#include "serve/infer_request.h"
#include "serve/metrics.h"
#include "serve/options.h"

namespace convship::serve {

class ServedModel {
 public:
  // Loads it, tries batches, and warms it up. Throws Error.
  ServedModel(const ServedFile& file, const convship::Options& load, int max_batch);

  const std::string& name() const { return name_; }
  const Model& model() const { return model_; }
  bool classifies() const { return !model_.labels().empty(); }
  // Requests may share a call: an answer's bits do not depend on its neighbours.
  bool batches() const { return why_alone_.empty(); }
  // Why they may not; empty when they may.
  const std::string& why_alone() const { return why_alone_; }

  // Of the Open Inference Protocol.
  nlohmann::ordered_json metadata() const;
  // For people: labels, digest, size, what export recorded.
  nlohmann::ordered_json card() const;
  // The first size varies in every input (and so counts rows).
  bool has_rows() const { return has_rows_; }
  // A message of the library, with the name that clients know.
  std::string for_clients(std::string message) const;

 private:
  std::string try_batches(int max_batch) const;

  std::string name_;
  std::string path_;
  Model model_;
  std::string platform_;
  bool has_rows_ = false;
  std::string why_alone_;
};

// The version that every served file has.
inline constexpr const char* kVersion = "1";

}  // namespace convship::serve
