#include "convship/model.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <string_view>

#include "forks.h"
#include "guard.h"
#include "images/decode.h"
#include "layout.h"
#include "log.h"
#include "model_impl.h"

namespace convship {
namespace {

// A call of a loaded model: its messages go to its log, its errors are Error.
template <typename Work>
auto call(const runtime::LoadedModel& model, ErrorCode code, const Work& work) {
  const runtime::LogScope scope(model.log);
  runtime::settle_after_fork();
  return runtime::guarded(code, model.name, work);
}

std::string describe(const std::vector<LoadStage>& stages) {
  std::string text;
  for (const LoadStage& stage : stages) {
    text += (text.empty() ? "" : ", ") + stage.name + " " + std::to_string(stage.milliseconds);
  }
  return text;
}

// Of an image among others, for messages; one alone is the model's subject.
std::string numbered(std::size_t index, std::size_t count) {
  return count == 1 ? "image" : "image " + std::to_string(index + 1);
}

std::string names_of(const runtime::NamedAtTensors& outputs) {
  std::string text;
  for (const auto& [name, tensor] : outputs) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const at::Tensor& find(const runtime::NamedAtTensors& outputs, const std::string& name) {
  for (const auto& [each, tensor] : outputs) {
    if (each == name) return tensor;
  }
  throw Error(ErrorCode::usage,
              "the network's outputs are " + names_of(outputs) + "; got '" + name + "'");
}

// The caller's memory as a tensor, once `answer` is known to fit.
at::Tensor destination(const NamedBuffer& buffer, const at::Tensor& answer) {
  const MutableTensorView& view = buffer.tensor;
  const DType dtype = runtime::dtype_of(answer);
  if (dtype != view.dtype || answer.sizes() != at::IntArrayRef(view.shape)) {
    throw Error(ErrorCode::usage,
                "output '" + buffer.name + "' is " + runtime::describe(dtype, answer.sizes()) +
                    ", got memory for " + runtime::describe(view.dtype, view.shape));
  }
  const std::string subject = "output '" + buffer.name + "': ";
  const auto bytes = runtime::checked_extent(view.dtype, view.shape, view.strides, subject);
  if (view.data == nullptr && bytes > 0) {
    throw Error(ErrorCode::usage, subject + "data must not be a null pointer");
  }
  const auto options = runtime::options_of(view.dtype);
  return view.strides.empty() ? at::from_blob(view.data, view.shape, options)
                              : at::from_blob(view.data, view.shape, view.strides, options);
}

}  // namespace

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

Model Model::load(const std::filesystem::path& path, const Options& options) {
  const runtime::LogScope scope(options.log);
  return runtime::guarded(ErrorCode::model, path.string(), [&] {
    runtime::LoadTimes times;
    auto bytes = runtime::read_file(path);
    times.mark("read");
    auto impl = std::make_unique<Impl>(
        runtime::load_model(std::move(bytes), options, path.string(), times));
    impl->stages = times.stages();
    runtime::log(LogLevel::debug, path.string() + ": loaded, ms: " + describe(impl->stages));
    return Model(std::move(impl));
  });
}

Model Model::load(std::span<const std::byte> bytes,
                  const Options& options,
                  const std::string& name) {
  const runtime::LogScope scope(options.log);
  return runtime::guarded(ErrorCode::model, name, [&] {
    runtime::LoadTimes times;
    auto impl = std::make_unique<Impl>(
        runtime::load_model({bytes.begin(), bytes.end()}, options, name, times));
    impl->stages = times.stages();
    runtime::log(LogLevel::debug, name + ": loaded, ms: " + describe(impl->stages));
    return Model(std::move(impl));
  });
}

const ModelFile& Model::file() const { return impl_->file; }

const std::string& Model::manifest() const { return impl_->manifest_json; }

const std::vector<std::string>& Model::labels() const {
  static const std::vector<std::string> kNone;
  return impl_->manifest ? impl_->manifest->labels : kNone;
}

const std::vector<TensorInfo>& Model::inputs() const { return impl_->inputs; }

const std::vector<TensorInfo>& Model::outputs() const {
  static const std::vector<TensorInfo> kNone;
  return impl_->manifest ? impl_->manifest->outputs : kNone;
}

std::vector<Prediction> Model::predict_file(const std::filesystem::path& image, int top_k) const {
  return std::move(predict_files({&image, 1}, top_k).front());
}

std::vector<Prediction> Model::predict_encoded(std::span<const std::byte> image, int top_k) const {
  return std::move(predict_encoded(std::span(&image, 1), top_k).front());
}

std::vector<Prediction> Model::predict_pixels(const PixelView& image, int top_k) const {
  return std::move(predict_pixels(std::span(&image, 1), top_k).front());
}

std::vector<std::vector<Prediction>> Model::predict_files(
    std::span<const std::filesystem::path> images, int top_k) const {
  return call(*impl_, ErrorCode::model, [&] {
    return impl_->predict(
        {images.size(),
         [&](std::size_t i) { return runtime::pixels_of(images::decode_file(images[i])); },
         [&](std::size_t i) { return images[i].string(); }},
        top_k);
  });
}

std::vector<std::vector<Prediction>> Model::predict_encoded(
    std::span<const std::span<const std::byte>> images, int top_k) const {
  const auto name = [&](std::size_t i) { return numbered(i, images.size()); };
  const auto pixels = [&](std::size_t i) {
    return runtime::pixels_of(images::decode(images[i], {}, name(i)));
  };
  return call(*impl_, ErrorCode::model,
              [&] { return impl_->predict({images.size(), pixels, name}, top_k); });
}

std::vector<std::vector<Prediction>> Model::predict_pixels(std::span<const PixelView> images,
                                                           int top_k) const {
  const auto name = [&](std::size_t i) { return numbered(i, images.size()); };
  const auto pixels = [&](std::size_t i) { return runtime::pixels_of(images[i], name(i)); };
  return call(*impl_, ErrorCode::model,
              [&] { return impl_->predict({images.size(), pixels, name}, top_k); });
}

std::vector<NamedTensor> Model::run(const std::vector<NamedView>& inputs) const {
  return call(*impl_, ErrorCode::usage, [&] {
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

PlanReport Model::plan(const std::vector<NamedView>& inputs) const {
  return call(*impl_, ErrorCode::usage, [&] { return impl_->plan(inputs); });
}

void Model::run_into(const std::vector<NamedView>& inputs,
                     const std::vector<NamedBuffer>& outputs) const {
  call(*impl_, ErrorCode::usage, [&] {
    const c10::InferenceMode inference;
    const auto answers = impl_->run(inputs);
    std::vector<std::pair<at::Tensor, at::Tensor>> copies;
    for (const NamedBuffer& buffer : outputs) {
      const at::Tensor& answer = find(answers, buffer.name);
      copies.emplace_back(destination(buffer, answer), answer);
    }
    for (auto& [to, from] : copies) to.copy_(from);
  });
}

void Model::warm_up(std::int64_t batch) const {
  call(*impl_, ErrorCode::model, [&] { impl_->warm_up(batch); });
}

Stages Model::stages(std::span<const std::byte> image) const {
  return call(*impl_, ErrorCode::model, [&] {
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
  return call(*impl_, ErrorCode::model, [&] { return runtime::selftest(*impl_); });
}

const std::vector<LoadStage>& Model::load_stages() const { return impl_->stages; }

}  // namespace convship
