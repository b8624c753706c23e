#include "convship/model.h"

#include <ATen/ops/softmax.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <new>
#include <numeric>
#include <string_view>

#include "convship/ops.h"
#include "images/decode.h"
#include "model_impl.h"

namespace convship {
namespace {

// LibTorch's messages carry a C++ backtrace below the first lines; users get
// the part that says what happened, on one line.
std::string first_line(const char* what) {
  std::string text(what);
  const std::size_t trace = text.find("Exception raised from");
  if (trace != std::string::npos) text.resize(trace);
  // The interpreter puts a listing of the code first and the reason last.
  const std::size_t reason = text.rfind("Error: ");
  if (text.find("TorchScript interpreter") != std::string::npos && reason != std::string::npos) {
    text.erase(0, reason + std::string_view("Error: ").size());
  }
  std::string line;
  for (const char c : text) {
    if (c == '\n' && line.size() > 400) break;
    const bool blank = c == '\n' || c == ' ';
    if (!blank) {
      line += c;
    } else if (!line.empty() && line.back() != ' ') {
      line += ' ';
    }
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

// Runs `work` and turns whatever it throws into Error, with `subject` in front.
template <typename Work>
auto guarded(ErrorCode code, const std::string& subject, const Work& work) {
  try {
    return work();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::environment, subject + ": not enough memory");
  } catch (const images::ImageError& error) {
    throw Error(ErrorCode::image, error.what());  // it names the image itself
  } catch (const c10::Error& error) {
    throw Error(code, subject + ": " + first_line(error.what_without_backtrace()));
  } catch (const std::exception& error) {
    throw Error(code, subject + ": " + first_line(error.what()));
  }
}

}  // namespace

namespace runtime {

at::Tensor pixels_of(images::Image image) {
  // [H, W, 3] rows as a [1, 3, H, W] view; the vector lives in the deleter.
  auto owner = std::make_shared<std::vector<std::uint8_t>>(std::move(image.rgb));
  return at::from_blob(
             owner->data(), {image.height, image.width, 3},
             [owner](void*) mutable { owner.reset(); }, at::kByte)
      .permute({2, 0, 1})
      .unsqueeze(0)
      .contiguous();
}

at::Tensor probabilities_of(const at::Tensor& logits) {
  return at::softmax(logits.to(at::kFloat), 1);
}

void LoadedModel::require_classifier() const {
  if (manifest && manifest->classifier) return;
  throw Error(
      ErrorCode::usage,
      name + (manifest ? ": the file holds no preprocessing and labels, so it cannot classify "
                         "images; export it with preprocess= and labels="
                       : ": a plain TorchScript file holds no preprocessing and labels, so it "
                         "cannot classify images; export it with convship"));
}

}  // namespace runtime

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

namespace {

runtime::LoadedModel load_checked(std::vector<std::byte> bytes,
                                  const Options& options,
                                  const std::string& name) {
  ops::register_ops();
  if (options.threads == 0) {
    set_threads(default_threads());
  } else if (options.threads != Options::keep_threads) {
    set_threads(options.threads);
  }
  runtime::LoadedModel model;
  model.name = name;
  runtime::Archive archive = runtime::open_archive(std::move(bytes), name, options.allow_plain);
  if (!archive.manifest.empty()) {
    model.manifest = runtime::parse_manifest(archive.manifest, name);
    model.manifest_json = archive.manifest;
  }
  model.goldens = std::move(archive.goldens);
  model.network = runtime::load_torchscript(archive, model.manifest ? &*model.manifest : nullptr,
                                            options.backend, name);
  return model;
}

}  // namespace

Model Model::load(const std::filesystem::path& path, const Options& options) {
  return guarded(ErrorCode::model, path.string(), [&] {
    auto impl = std::make_unique<Impl>();
    static_cast<runtime::LoadedModel&>(*impl) =
        load_checked(runtime::read_file(path), options, path.string());
    return Model(std::move(impl));
  });
}

Model Model::load(std::span<const std::byte> bytes,
                  const Options& options,
                  const std::string& name) {
  return guarded(ErrorCode::model, name, [&] {
    auto impl = std::make_unique<Impl>();
    static_cast<runtime::LoadedModel&>(*impl) =
        load_checked({bytes.begin(), bytes.end()}, options, name);
    return Model(std::move(impl));
  });
}

const std::string& Model::manifest() const { return impl_->manifest_json; }

const std::vector<std::string>& Model::labels() const {
  static const std::vector<std::string> kNone;
  return impl_->manifest ? impl_->manifest->labels : kNone;
}

std::vector<Prediction> Model::predict_file(const std::filesystem::path& image, int top_k) const {
  // What the network refuses is this image's failure; the next may be fine.
  return guarded(ErrorCode::image, image.string(), [&] {
    impl_->require_classifier();
    return impl_->predict(runtime::pixels_of(images::decode_file(image)), top_k);
  });
}

std::vector<Prediction> Model::predict_encoded(std::span<const std::byte> image, int top_k) const {
  return guarded(ErrorCode::model, impl_->name, [&] {
    impl_->require_classifier();
    return impl_->predict(runtime::pixels_of(images::decode(image)), top_k);
  });
}

namespace runtime {

std::vector<Prediction> LoadedModel::predict(const at::Tensor& pixels, int top_k) const {
  if (top_k < 1) {
    throw Error(ErrorCode::usage, "top_k must be at least 1, got " + std::to_string(top_k));
  }
  const c10::InferenceMode inference;
  const auto outputs = network->forward({network->preprocess(pixels)});
  const at::Tensor row = probabilities_of(outputs.at(0).second)[0].contiguous();
  const std::span<const float> values(row.const_data_ptr<float>(),
                                      static_cast<std::size_t>(row.numel()));
  std::vector<std::int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  const auto shown = std::min(values.size(), static_cast<std::size_t>(top_k));
  // Equal probabilities keep the order of the classes, as torch.sort(stable) does.
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
  });
  std::vector<Prediction> predictions;
  for (std::size_t i = 0; i < shown; ++i) {
    const auto index = static_cast<std::size_t>(order[i]);
    predictions.push_back({manifest->labels.at(index), order[i], values[index]});
  }
  return predictions;
}

NamedAtTensors LoadedModel::run(const std::vector<NamedView>& inputs) const {
  const std::vector<std::string> names = network->input_names();
  if (inputs.size() != names.size()) {
    throw Error(ErrorCode::usage, "the network takes " + std::to_string(names.size()) +
                                      " inputs, got " + std::to_string(inputs.size()));
  }
  std::vector<at::Tensor> tensors(names.size());
  for (const NamedView& input : inputs) {
    auto found = std::find(names.begin(), names.end(), input.name);
    if (names.size() == 1) found = names.begin();
    if (found == names.end() ||
        tensors[static_cast<std::size_t>(found - names.begin())].defined()) {
      std::string known;
      for (const auto& each : names) known += (known.empty() ? "" : ", ") + each;
      throw Error(ErrorCode::usage,
                  "the network's inputs are " + known + ", each once; got '" + input.name + "'");
    }
    // A copy: networks may write to their inputs, and outputs may be views of them.
    tensors[static_cast<std::size_t>(found - names.begin())] = to_aten(input.tensor).clone();
  }
  const c10::InferenceMode inference;
  return network->forward(std::move(tensors));
}

AtStages LoadedModel::stages_of_pixels(at::Tensor pixels) const {
  const c10::InferenceMode inference;
  AtStages stages;
  stages.pixels = std::move(pixels);
  stages.preprocessed = network->preprocess(stages.pixels);
  stages.outputs = network->forward({stages.preprocessed});
  stages.probabilities = probabilities_of(stages.outputs.at(0).second);
  return stages;
}

}  // namespace runtime

std::vector<NamedTensor> Model::run(const std::vector<NamedView>& inputs) const {
  return guarded(ErrorCode::usage, impl_->name, [&] {
    std::vector<NamedTensor> outputs;
    for (const auto& [name, tensor] : impl_->run(inputs)) {
      // Held by somebody else too (a weight, another output): the caller gets its own.
      const bool shared =
          tensor.use_count() > 1 || (tensor.has_storage() && tensor.storage().use_count() > 1);
      outputs.push_back({name, runtime::from_aten(shared ? tensor.clone() : tensor)});
    }
    return outputs;
  });
}

Stages Model::stages(std::span<const std::byte> image) const {
  return guarded(ErrorCode::model, impl_->name, [&] {
    impl_->require_classifier();
    const auto found = impl_->stages_of_pixels(runtime::pixels_of(images::decode(image)));
    Stages stages;
    stages.pixels = runtime::from_aten(found.pixels.squeeze(0));
    stages.preprocessed = runtime::from_aten(found.preprocessed);
    for (const auto& [name, tensor] : found.outputs) {
      stages.outputs.push_back({name, runtime::from_aten(tensor)});
    }
    stages.probabilities = runtime::from_aten(found.probabilities);
    return stages;
  });
}

std::vector<Check> Model::selftest() const {
  return guarded(ErrorCode::model, impl_->name, [&] { return runtime::selftest(*impl_); });
}

}  // namespace convship
