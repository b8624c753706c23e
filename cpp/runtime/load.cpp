// From checked bytes to a model that runs.
#include <torch/csrc/jit/runtime/operator.h>
#include <torch/headeronly/version.h>

#include "check.h"
#include "convship/ops.h"
#include "cpu_features.h"
#include "forks.h"
#include "guard.h"
#include "log.h"
#include "model_impl.h"
#include "op_libraries.h"
#include "torch_version.h"

namespace convship::runtime {
namespace {

void apply_threads(int threads) {
  if (threads == 0) {
    set_threads(default_threads());
  } else if (threads != Options::keep_threads) {
    set_threads(threads);
  }
}

// An operator that nobody registered would surface as a parse error deep inside
// LibTorch; naming it first says what to do.
void check_ops(const std::vector<std::string>& ops, const std::string& name) {
  for (const std::string& op : ops) {
    if (torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(op)).empty()) {
      throw Error(ErrorCode::model,
                  name + ": the model needs the operator " + op +
                      ", which this program does not have; name the library that registers it "
                      "(op_libraries, --op-library)");
    }
  }
}

// Native code for another CPU would end the process by SIGILL.
void check_cpu(const std::optional<Manifest>& manifest, const std::string& name) {
  if (!manifest || !manifest->compiled_for) return;
  if (const std::string problem = cpu_problem(*manifest->compiled_for); !problem.empty()) {
    throw Error(ErrorCode::environment,
                name + ": the network cannot run on this machine: " + problem +
                    "; export it for this CPU (--cpu), or as .pt, which runs on any");
  }
}

std::string written_by(const std::optional<Manifest>& manifest) {
  if (!manifest || manifest->torch.starts_with(TORCH_VERSION)) return {};
  return "; the file was written by torch " + manifest->torch + ", this is LibTorch " TORCH_VERSION;
}

std::unique_ptr<NetworkBackend> load_network(const Archive& archive,
                                             const std::optional<Manifest>& manifest,
                                             Backend backend,
                                             const std::string& name,
                                             LoadTimes& times) {
  return explained(
      [&] {
        if (archive.kind == ArchiveKind::aotinductor) {
          return load_aotinductor(archive, *manifest, backend, times);
        }
        return load_torchscript(archive, manifest ? &*manifest : nullptr, backend, times);
      },
      [&](const std::string& reason) {
        throw Error(ErrorCode::model,
                    name + ": LibTorch cannot load the network: " + reason + written_by(manifest));
      });
}

}  // namespace

LoadedModel load_model(std::vector<std::byte> bytes,
                       const Options& options,
                       const std::string& name,
                       LoadTimes& times) {
  if (const auto why = torch_mismatch(TORCH_VERSION, loaded_torch_version()); !why.empty()) {
    throw Error(ErrorCode::environment, why);
  }
  watch_forks();
  settle_after_fork();
  ops::register_ops();
  apply_threads(options.threads);
  LoadedModel model;
  model.name = name;
  model.log = options.log;
  CheckedFile file = check_file(std::move(bytes), name, {options.allow_plain, options.public_key});
  Archive& archive = file.archive;
  model.file = {archive.sha256, archive.bytes.size()};
  if (file.manifest) {
    model.manifest = std::move(file.manifest);
    model.manifest_json = archive.manifest;
  }
  times.mark("check");
  check_cpu(model.manifest, name);
  load_op_libraries(options.op_libraries);
  if (!options.op_libraries.empty()) times.mark("operator libraries");
  check_ops(model.manifest ? model.manifest->required_ops : archive.custom_ops, name);
  model.network = load_network(archive, model.manifest, options.backend, name, times);
  model.goldens = std::move(archive.goldens);
  if (model.manifest) {
    model.inputs = model.manifest->inputs;
  } else {
    for (const std::string& input : model.network->input_names()) {
      model.inputs.push_back({input, {}, {}});
    }
  }
  if (options.backend == Backend::convship) {
    model.prepare();
    times.mark("first calls");
  }
  return model;
}

}  // namespace convship::runtime
