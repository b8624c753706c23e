#include "manifest.h"

#include <nlohmann/json.hpp>

#include "convship/error.h"

namespace convship::runtime {
namespace {

constexpr int kFormat = 1;

std::vector<std::string> names(const nlohmann::json& tensors) {
  std::vector<std::string> result;
  for (const auto& tensor : tensors) result.push_back(tensor.at("name"));
  return result;
}

Manifest read(const nlohmann::json& json) {
  Manifest manifest;
  manifest.classifier = json.at("task") == "classification";
  manifest.inputs = names(json.at("inputs"));
  manifest.outputs = names(json.at("outputs"));
  manifest.labels = json.at("labels").get<std::vector<std::string>>();
  manifest.required_ops = json.at("required_ops").get<std::vector<std::string>>();
  const auto& tolerances = json.at("tolerances");
  manifest.tolerances = tolerances.at("outputs").get<std::map<std::string, double>>();
  manifest.probabilities_tolerance = tolerances.at("probabilities");
  manifest.goldens = json.at("goldens");
  return manifest;
}

}  // namespace

Manifest parse_manifest(const std::string& json, const std::string& name) {
  try {
    const nlohmann::json parsed = nlohmann::json::parse(json);
    const int format = parsed.at("format");
    if (format != kFormat) {
      throw Error(ErrorCode::model,
                  name + ": the manifest has format " + std::to_string(format) +
                      ", this build reads " + std::to_string(kFormat) + "; written by convship " +
                      parsed.value("convship", "of unknown version") + ", use that or a newer one");
    }
    return read(parsed);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::model, name + ": the manifest cannot be read (" + error.what() +
                                      "); export the file again");
  }
}

}  // namespace convship::runtime
