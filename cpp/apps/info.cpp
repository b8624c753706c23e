#include <iostream>
#include <nlohmann/json.hpp>

#include "verbs.h"

namespace convship::apps {
namespace {

using nlohmann::json;

json describe(const ModelArguments& arguments, const Model& model) {
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
            {"threads", threads()}}}};
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
  std::cout << "runtime   convship " << runtime["convship"].get<std::string>() << ", LibTorch "
            << runtime["torch"].get<std::string>() << ", kernels "
            << runtime["isa"].get<std::string>() << ", backend "
            << runtime["backend"].get<std::string>() << ", " << runtime["threads"] << " threads\n";
}

}  // namespace

Action add_info(CLI::App& verb) {
  auto arguments = std::make_shared<ModelArguments>();
  arguments->add_to(verb);
  return [arguments] {
    const Model model = arguments->load();
    const json described = describe(*arguments, model);
    if (arguments->json) {
      std::cout << described.dump() << '\n';
    } else {
      print(described);
    }
    return kOk;
  };
}

}  // namespace convship::apps
