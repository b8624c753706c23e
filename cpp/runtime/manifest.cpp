#include "manifest.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "convship/error.h"
#include "json_values.h"
#include "printable.h"

namespace convship::runtime {
namespace {

constexpr int kFormat = 1;
// Bounds that no network comes near; they keep sums and products of what the
// file says from meaning anything else than it says.
constexpr std::size_t kMostTensors = 10'000;
constexpr std::size_t kMostDimensions = 64;  // of LibTorch
constexpr std::int64_t kMostElements = std::int64_t{1} << 40;
constexpr std::int64_t kMostGoldens = 100'000;
constexpr std::size_t kMostFeatures = 1'000;

using nlohmann::json;

[[noreturn]] void refuse(const std::string& what) { throw std::out_of_range(what); }

std::string text(const json& object, const char* key) {
  return object.at(key).get_ref<const std::string&>();
}

std::vector<std::string> texts(const json& object, const char* key) {
  if (!object.at(key).is_array()) refuse(std::string(key) + " must be a list");
  return object.at(key).get<std::vector<std::string>>();
}

std::vector<std::int64_t> shape_of(const json& sizes, const std::string& name) {
  if (!sizes.is_array() || sizes.size() > kMostDimensions) {
    refuse("shape of '" + name + "' must be a list of at most 64 sizes");
  }
  std::vector<std::int64_t> shape;
  std::int64_t elements = 1;
  for (const json& size : sizes) {
    shape.push_back(size.is_null() ? TensorInfo::kAnySize
                                   : integer_of(size, 0, kMostElements, "a size"));
    if (shape.back() > 0 && __builtin_mul_overflow(elements, shape.back(), &elements)) {
      elements = kMostElements + 1;
    }
    if (elements > kMostElements) refuse("'" + name + "' is larger than any machine's memory");
  }
  return shape;
}

// Dtypes that this build does not know are left out: running tells.
std::vector<TensorInfo> infos(const json& manifest, const char* key) {
  const json& tensors = manifest.at(key);
  if (!tensors.is_array() || tensors.size() > kMostTensors) {
    refuse(std::string(key) + " must be a list of at most 10000 tensors");
  }
  std::vector<TensorInfo> result;
  std::set<std::string> names;
  for (const json& tensor : tensors) {
    TensorInfo info;
    info.name = text(tensor, "name");
    info.dtype = dtype_named(text(tensor, "dtype"));
    info.shape = shape_of(tensor.at("shape"), info.name);
    if (!names.insert(info.name).second) refuse("two " + std::string(key) + " have one name");
    result.push_back(std::move(info));
  }
  return result;
}

double tolerance_of(const json& value) {
  if (!value.is_number() || value.get<double>() < 0) refuse("a tolerance must be 0 or more");
  return value.get<double>();
}

// "convship::conv_pool2d"; LibTorch would keep whatever it is asked for forever.
std::vector<std::string> ops_of(const json& manifest) {
  std::vector<std::string> ops = texts(manifest, "required_ops");
  if (ops.size() > kMostTensors) refuse("required_ops names too many operators");
  for (const std::string& op : ops) {
    const bool word = std::all_of(op.begin(), op.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '_' || c == '.' || c == ':';
    });
    const std::size_t colons = op.find("::");
    if (!word || op.size() > 200 || colons == 0 || colons == std::string::npos ||
        colons + 2 == op.size() || op.find(':', colons + 2) != std::string::npos) {
      refuse("required_ops must hold names like convship::conv_pool2d");
    }
  }
  return ops;
}

// Absent from files that hold no native code.
std::optional<CompiledFor> compiled_for(const json& manifest) {
  const auto found = manifest.find("compiled_for");
  if (found == manifest.end() || found->is_null()) return {};
  CompiledFor cpu{text(*found, "machine"), texts(*found, "features")};
  if (cpu.features.size() > kMostFeatures) refuse("compiled_for names too many features");
  return cpu;
}

// What classifying images relies on.
void check_classifier(const Manifest& manifest) {
  if (manifest.inputs.size() != 1 || manifest.inputs[0].shape->size() != 4) {
    refuse("a classifier has one input [N, C, H, W]");
  }
  if (manifest.outputs.size() != 1 || manifest.outputs[0].shape->size() != 2) {
    refuse("a classifier has one output [N, classes]");
  }
  const std::int64_t classes = manifest.outputs[0].shape->back();
  if (classes != static_cast<std::int64_t>(manifest.labels.size())) {
    refuse("labels must name the " + std::to_string(classes) + " classes, got " +
           std::to_string(manifest.labels.size()));
  }
}

Manifest read(const json& parsed) {
  Manifest manifest;
  const std::string task = text(parsed, "task");
  manifest.classifier = task == "classification";
  if (!manifest.classifier && task != "general") refuse("task must be classification or general");
  manifest.inputs = infos(parsed, "inputs");
  manifest.outputs = infos(parsed, "outputs");
  manifest.labels = texts(parsed, "labels");
  manifest.required_ops = ops_of(parsed);
  const json& tolerances = parsed.at("tolerances");
  for (const auto& [name, value] : tolerances.at("outputs").items()) {
    manifest.tolerances[name] = tolerance_of(value);
  }
  manifest.probabilities_tolerance = tolerance_of(tolerances.at("probabilities"));
  manifest.goldens = static_cast<int>(integer_of(parsed.at("goldens"), 0, kMostGoldens, "goldens"));
  manifest.compiled_for = compiled_for(parsed);
  manifest.torch = text(parsed, "torch");
  if (parsed.contains("precision")) manifest.precision = text(parsed, "precision");
  text(parsed, "convship");
  if (manifest.classifier) check_classifier(manifest);
  return manifest;
}

[[noreturn]] void fail(const char* reason, const std::string& name) {
  throw Error(ErrorCode::model, name + ": the manifest cannot be read (" + printable(reason) +
                                    "); export the file again");
}

}  // namespace

Manifest parse_manifest(const std::string& json_text, const std::string& name) {
  try {
    const json parsed = parse_json(json_text.data(), json_text.data() + json_text.size());
    const std::int64_t format = integer_of(parsed.at("format"), 1, INT32_MAX, "format");
    if (format != kFormat) {
      throw Error(ErrorCode::model, name + ": the manifest has format " + std::to_string(format) +
                                        ", this build reads " + std::to_string(kFormat) +
                                        "; written by convship " +
                                        printable(parsed.value("convship", "of unknown version")) +
                                        ", use that or a newer one");
    }
    return read(parsed);
  } catch (const nlohmann::json::exception& error) {
    fail(error.what(), name);
  } catch (const std::out_of_range& error) {
    fail(error.what(), name);
  }
}

}  // namespace convship::runtime
