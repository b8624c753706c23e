#include "manifest.h"

#include <nlohmann/json.hpp>

#include "convship/error.h"

namespace convship::runtime {
namespace {

constexpr int kFormat = 1;

// Dtypes that this build does not know are left out: running tells.
std::vector<TensorInfo> infos(const nlohmann::json& tensors) {
  std::vector<TensorInfo> result;
  for (const auto& tensor : tensors) {
    TensorInfo info;
    info.name = tensor.at("name");
    info.dtype = dtype_named(tensor.at("dtype").get<std::string>());
    info.shape.emplace();
    for (const auto& size : tensor.at("shape")) {
      info.shape->push_back(size.is_null() ? TensorInfo::kAnySize : size.get<std::int64_t>());
    }
    result.push_back(std::move(info));
  }
  return result;
}

Manifest read(const nlohmann::json& json) {
  Manifest manifest;
  manifest.classifier = json.at("task") == "classification";
  manifest.inputs = infos(json.at("inputs"));
  manifest.outputs = infos(json.at("outputs"));
  manifest.labels = json.at("labels").get<std::vector<std::string>>();
  manifest.required_ops = json.at("required_ops").get<std::vector<std::string>>();
  const auto& tolerances = json.at("tolerances");
  manifest.tolerances = tolerances.at("outputs").get<std::map<std::string, double>>();
  manifest.probabilities_tolerance = tolerances.at("probabilities");
  manifest.goldens = json.at("goldens");
  manifest.torch = json.at("torch");
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
