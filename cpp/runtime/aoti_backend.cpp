// A network that AOTInductor compiled: native code in a shared library.
#include <ATen/core/ivalue.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_runner/model_container_runner_cpu.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/passes/freeze_module.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>

#include "backend.h"
#include "convert.h"
#include "interpreter.h"
#include "model_impl.h"
#include "ops/constant_weights.h"
#include "package.h"
#include "private_folder.h"
#include "read_torchscript.h"

namespace convship::runtime {
namespace {

using Runner = torch::inductor::AOTIModelContainerRunnerCpu;

// Calls that run at once have a runner each, which is small: constants are shared.
std::size_t runners() { return static_cast<std::size_t>(std::clamp(cpu_limits().affinity, 1, 64)); }

void extract(const ZipArchive& zip, std::string_view path, PrivateFolder& folder) {
  const ZipArchive::Member* member = zip.find(path);
  if (member == nullptr) return;
  folder.write(std::string(path.substr(path.rfind('/') + 1)), zip.read(*member));
}

// The library is mapped, and needs its file no more, when this returns.
std::unique_ptr<Runner> load_library(const ZipArchive& zip) {
  // LibTorch's loader is not made for several threads.
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  PrivateFolder folder;
  extract(zip, kPackageOperators, folder);
  const auto library = folder.write("model.wrapper.so", zip.read(*zip.find(kPackageLibrary)));
  return std::make_unique<Runner>(library.string(), runners());
}

std::vector<at::Tensor> constants_of(const Runner& runner) {
  std::vector<at::Tensor> constants;
  for (const auto& [name, tensor] : runner.extract_constants_map(/*use_inactive=*/false)) {
    constants.push_back(tensor);
  }
  return constants;
}

class AotInductorBackend final : public NetworkBackend {
 public:
  AotInductorBackend(std::unique_ptr<Runner> runner,
                     std::optional<torch::jit::Module> preprocess,
                     const Manifest& manifest,
                     Backend backend)
      : runner_(std::move(runner)),
        preprocess_(std::move(preprocess)),
        inputs_(manifest.inputs),
        outputs_(manifest.outputs),
        backend_(backend) {
    if (backend == Backend::convship) {
      weights_ = std::make_unique<ops::ConstantWeights>(constants_of(*runner_));
    }
  }

  std::vector<std::string> input_names() const override {
    std::vector<std::string> names;
    for (const TensorInfo& input : inputs_) names.push_back(input.name);
    return names;
  }

  NamedAtTensors forward(std::vector<at::Tensor> inputs) const override {
    const c10::InferenceMode inference;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      check(inputs_[i], inputs.at(i));
      inputs[i] = inputs[i].contiguous();
    }
    std::optional<ops::ConstantWeights::Use> use;
    if (weights_) use.emplace(*weights_);
    const std::vector<at::Tensor> answers = runner_->boxed_run(std::move(inputs));
    if (answers.size() != outputs_.size()) {
      throw std::runtime_error("the compiled network gives " + std::to_string(answers.size()) +
                               " outputs, the manifest names " + std::to_string(outputs_.size()));
    }
    NamedAtTensors outputs;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      outputs.emplace_back(outputs_[i].name, answers[i]);
    }
    return outputs;
  }

  // Compiled networks have no side effects.
  bool is_pure() const override {
    return !preprocess_ || runtime::is_pure(*preprocess_, "forward");
  }

  PlanReport plan(const std::vector<at::Tensor>&) const override {
    return {false, {}, {{"AOTInductor's compiled network", 1}}};
  }

  at::Tensor preprocess(const at::Tensor& images) const override {
    if (!preprocess_) {
      throw Error(ErrorCode::usage,
                  "the model has no preprocessing; export it with preprocessing and labels");
    }
    const c10::InferenceMode inference;
    return call_method(*preprocess_, "forward", {images}, backend_).toTensor();
  }

 private:
  // Compiled code takes sizes and dtypes for granted: it would read beyond the
  // end of others.
  static void check(const TensorInfo& expected, const at::Tensor& input) {
    const auto& shape = *expected.shape;
    bool fits =
        dtype_of(input) == *expected.dtype && static_cast<std::size_t>(input.dim()) == shape.size();
    for (std::size_t i = 0; fits && i < shape.size(); ++i) {
      fits =
          shape[i] == TensorInfo::kAnySize || shape[i] == input.size(static_cast<std::int64_t>(i));
    }
    if (fits) return;
    throw std::invalid_argument("a compiled network takes '" + expected.name + "' as " +
                                describe(*expected.dtype, shape) + " only, got " +
                                describe(dtype_of(input), input.sizes()));
  }

  std::unique_ptr<Runner> runner_;
  std::optional<torch::jit::Module> preprocess_;
  std::vector<TensorInfo> inputs_;
  std::vector<TensorInfo> outputs_;
  Backend backend_;
  // After the runner, whose constants these refer to. Null: every call packs, as
  // it does in LibTorch's own loader.
  std::unique_ptr<ops::ConstantWeights> weights_;
};

// Freezing changes no bit, as there is nothing but what the module was made of.
torch::jit::Module load_preprocess(const ZipArchive& zip,
                                   const ZipArchive::Member& member,
                                   Backend backend) {
  torch::jit::Module module = read_torchscript(zip.read(member));
  return backend == Backend::convship ? torch::jit::freeze_module(module) : module;
}

}  // namespace

std::unique_ptr<NetworkBackend> load_aotinductor(const Archive& archive,
                                                 const Manifest& manifest,
                                                 Backend backend,
                                                 LoadTimes& times) {
  const c10::InferenceMode inference;
  for (const TensorInfo& input : manifest.inputs) {
    if (!input.dtype) {
      throw std::runtime_error("input '" + input.name + "' has a dtype that this build lacks");
    }
  }
  const ZipArchive zip(archive.bytes, "archive");
  std::unique_ptr<Runner> runner = load_library(zip);
  times.mark("library");
  std::optional<torch::jit::Module> preprocess;
  if (const ZipArchive::Member* member = zip.find(kPackagePreprocess)) {
    preprocess = load_preprocess(zip, *member, backend);
    times.mark("preprocessing");
  } else if (manifest.classifier) {
    throw std::runtime_error("the file holds no preprocessing, which a classifier has");
  }
  return std::make_unique<AotInductorBackend>(std::move(runner), std::move(preprocess), manifest,
                                              backend);
}

}  // namespace convship::runtime
