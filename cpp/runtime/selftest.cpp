// The goldens: every stage's answer, as the exporting machine computed it,
// against this machine's.
#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <limits>

#include "model_impl.h"
#include "safetensors.h"

namespace convship::runtime {
namespace {

// Largest absolute difference in float64; NaN equals NaN, infinity itself.
double max_difference(const at::Tensor& expected, const at::Tensor& actual) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (expected.sizes() != actual.sizes()) return kInfinity;
  if (expected.numel() == 0) return 0;
  const at::Tensor a = expected.to(at::kDouble);
  const at::Tensor b = actual.to(at::kDouble);
  const at::Tensor same = a.eq(b).logical_or(a.isnan().logical_and(b.isnan()));
  const at::Tensor difference =
      a.sub(b).abs().masked_fill(same, 0).nan_to_num(kInfinity, kInfinity);
  return difference.max().item<double>();
}

class Golden {
 public:
  Golden(const std::map<std::string, Tensor>& tensors, int index)
      : tensors_(tensors), prefix_(std::to_string(index) + "."), index_(index) {}

  int index() const { return index_; }

  const Tensor* find(const std::string& key) const {
    const auto found = tensors_.find(prefix_ + key);
    return found == tensors_.end() ? nullptr : &found->second;
  }

  const Tensor& at(const std::string& key) const {
    const Tensor* tensor = find(key);
    if (tensor == nullptr)
      throw std::runtime_error("the golden '" + prefix_ + key + "' is missing");
    return *tensor;
  }

  Check compare(const std::string& key,
                const std::string& stage,
                const at::Tensor& actual,
                double tolerance) const {
    const double error = max_difference(to_aten(at(key)), actual);
    return {index_, stage, error, tolerance, error <= tolerance};
  }

 private:
  const std::map<std::string, Tensor>& tensors_;
  std::string prefix_;
  int index_;
};

void check_outputs(const Manifest& manifest,
                   const Golden& golden,
                   const NamedAtTensors& outputs,
                   std::vector<Check>& checks) {
  for (const TensorInfo& info : manifest.outputs) {
    const auto same_name = [&](const auto& output) { return output.first == info.name; };
    if (std::none_of(outputs.begin(), outputs.end(), same_name)) {
      constexpr double kInfinity = std::numeric_limits<double>::infinity();
      checks.push_back({golden.index(), "output " + info.name, kInfinity, 0, false});
    }
  }
  for (const auto& [name, tensor] : outputs) {
    const auto tolerance = manifest.tolerances.find(name);
    checks.push_back(
        golden.compare("output." + name, "output " + name, tensor,
                       tolerance == manifest.tolerances.end() ? 0 : tolerance->second));
  }
}

void check_image(const LoadedModel& model, const Golden& golden, std::vector<Check>& checks) {
  at::Tensor pixels = to_aten(golden.at("pixels")).unsqueeze(0);
  if (const Tensor* file = golden.find("file")) {
    const auto* bytes = static_cast<const std::byte*>(file->data());
    const at::Tensor decoded =
        pixels_of(images::decode({bytes, static_cast<std::size_t>(file->numel())}));
    checks.push_back(golden.compare("pixels", "decode", decoded.squeeze(0), 0));
    pixels = decoded;
  }
  const AtStages stages = model.stages_of_pixels(pixels);
  checks.push_back(golden.compare("preprocessed", "preprocess", stages.preprocessed, 0));
  check_outputs(*model.manifest, golden, stages.outputs, checks);
  checks.push_back(golden.compare("probabilities", "probabilities", stages.probabilities,
                                  model.manifest->probabilities_tolerance));
}

void check_tensors(const LoadedModel& model, const Golden& golden, std::vector<Check>& checks) {
  std::vector<NamedView> inputs;
  for (const TensorInfo& info : model.manifest->inputs) {
    inputs.push_back({info.name, golden.at("input." + info.name).view()});
  }
  check_outputs(*model.manifest, golden, model.run(inputs), checks);
}

}  // namespace

std::vector<Check> selftest(const LoadedModel& model) {
  if (!model.manifest || model.manifest->goldens == 0) {
    throw Error(ErrorCode::model, model.name +
                                      ": the file holds no goldens, so it cannot be tested; "
                                      "export it with sample inputs");
  }
  const c10::InferenceMode inference;
  const auto tensors = read_safetensors(model.goldens, model.name);
  std::vector<Check> checks;
  for (int i = 0; i < model.manifest->goldens; ++i) {
    const Golden golden(tensors, i);
    if (model.manifest->classifier) {
      check_image(model, golden, checks);
    } else {
      check_tensors(model, golden, checks);
    }
  }
  return checks;
}

}  // namespace convship::runtime
