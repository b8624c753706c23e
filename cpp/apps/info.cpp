#include <cmath>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "process.h"
#include "verbs.h"

namespace convship::apps {
namespace {

using nlohmann::json;

json stages(const Model& model) {
  json list = json::array();
  for (const LoadStage& stage : model.load_stages()) {
    list.push_back({{"stage", stage.name}, {"ms", stage.milliseconds}});
  }
  return list;
}

json describe(const ModelArguments& arguments, const Model& model, double start_ms) {
  const Build built = build();
  const json manifest = model.manifest().empty() ? json(nullptr) : json::parse(model.manifest());
  return {{"path", arguments.path.string()},
          {"kind", manifest.is_null() ? "plain TorchScript" : "convship"},
          {"manifest", manifest},
          {"runtime",
           {{"convship", built.convship},
            {"torch", built.torch},
            {"isa", built.isa},
            {"backend", arguments.backend},
            {"threads", threads()}}},
          {"loading", {{"start_ms", start_ms}, {"stages", stages(model)}}}};
}

std::string tensors(const json& list) {
  std::string text;
  for (const json& tensor : list) {
    text += (text.empty() ? "" : ", ") + tensor.at("name").get<std::string>() + " " +
            tensor.at("dtype").get<std::string>() + " [";
    const char* separator = "";
    for (const json& dim : tensor.at("shape")) {
      text += separator + (dim.is_null() ? "N" : std::to_string(dim.get<std::int64_t>()));
      separator = ", ";
    }
    text += "]";
  }
  return text;
}

void print(const json& described) {
  std::cout << "file      " << described["path"].get<std::string>() << " ("
            << described["kind"].get<std::string>() << ")\n";
  const json& manifest = described["manifest"];
  if (!manifest.is_null()) {
    std::cout << "written   by convship " << manifest["convship"].get<std::string>() << ", torch "
              << manifest["torch"].get<std::string>() << '\n'
              << "inputs    " << tensors(manifest["inputs"]) << '\n'
              << "outputs   " << tensors(manifest["outputs"]) << '\n'
              << "labels    " << manifest["labels"].size() << '\n'
              << "ops       "
              << (manifest["required_ops"].empty() ? "LibTorch's own"
                                                   : manifest["required_ops"].dump())
              << '\n'
              << "goldens   " << manifest["goldens"] << '\n';
  }
  const json& runtime = described["runtime"];
  const json& loading = described["loading"];
  std::cout << "runtime   convship " << runtime["convship"].get<std::string>() << ", LibTorch "
            << runtime["torch"].get<std::string>() << ", kernels "
            << runtime["isa"].get<std::string>() << ", backend "
            << runtime["backend"].get<std::string>() << ", " << runtime["threads"] << " threads\n"
            << "loading   program and LibTorch " << std::lround(loading["start_ms"].get<double>())
            << " ms";
  for (const json& stage : loading["stages"]) {
    std::cout << ", " << stage["stage"].get<std::string>() << ' ' << std::fixed
              << std::setprecision(1) << stage["ms"].get<double>() << " ms";
  }
  std::cout << '\n';
}

}  // namespace

Action add_info(CLI::App& verb) {
  auto arguments = std::make_shared<ModelArguments>();
  arguments->add_to(verb);
  return [arguments] {
    const double start_ms = milliseconds_since_start();
    const Model model = arguments->load();
    const json described = describe(*arguments, model, start_ms);
    if (arguments->json) {
      std::cout << described.dump() << '\n';
    } else {
      print(described);
    }
    return kOk;
  };
}

}  // namespace convship::apps
