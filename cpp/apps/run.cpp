#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "npy.h"
#include "verbs.h"

namespace convship::apps {
namespace {

using nlohmann::json;

struct RunArguments {
  ModelArguments model;
  std::vector<std::string> inputs;  // NAME=FILE
  std::filesystem::path output;
};

// Output names come from the model: a file name must not lead out of the folder,
// and no two may collide, hence URL-style escapes.
std::string file_name(const std::string& name) {
  std::string escaped;
  for (const char c : name) {
    if (c == '/') {
      escaped += "%2F";
    } else if (c == '%') {
      escaped += "%25";
    } else {
      escaped += c;
    }
  }
  return escaped + ".npy";
}

int run(RunArguments& arguments) {
  std::vector<NamedTensor> tensors;
  for (const std::string& input : arguments.inputs) {
    const std::size_t equals = input.find('=');
    if (equals == std::string::npos) {
      throw Error(ErrorCode::usage, "inputs are NAME=FILE.npy, got '" + input + "'");
    }
    tensors.push_back({input.substr(0, equals), read_npy(input.substr(equals + 1))});
  }
  std::vector<NamedView> views;
  for (const NamedTensor& tensor : tensors) views.push_back({tensor.name, tensor.tensor.view()});
  const Model model = arguments.model.load();
  const auto outputs = model.run(views);

  std::error_code error;
  std::filesystem::create_directories(arguments.output, error);
  json list = json::array();
  for (const auto& [name, tensor] : outputs) {
    const auto path = arguments.output / file_name(name);
    std::ofstream out(path, std::ios::binary);
    write_npy(out, tensor);
    out.flush();
    if (!out) throw Error(ErrorCode::environment, path.string() + ": cannot be written");
    list.push_back({{"name", name},
                    {"dtype", name_of(tensor.dtype())},
                    {"shape", tensor.shape()},
                    {"path", path.string()}});
    if (!arguments.model.json)
      std::cout << name << ' ' << name_of(tensor.dtype()) << " -> " << path.string() << '\n';
  }
  if (arguments.model.json) std::cout << json{{"outputs", list}}.dump() << '\n';
  return kOk;
}

}  // namespace

Action add_run(CLI::App& verb) {
  auto arguments = std::make_shared<RunArguments>();
  arguments->model.add_to(verb);
  verb.add_option("inputs", arguments->inputs, "NAME=FILE.npy, one per input of the network")
      ->required();
  verb.add_option("--output", arguments->output, "Folder for the outputs, NAME.npy each")
      ->required();
  return [arguments] { return run(*arguments); };
}

}  // namespace convship::apps
