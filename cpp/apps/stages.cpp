// `convship verify` reads this: what the native program computed, stage by stage.
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "image_files.h"
#include "npy.h"
#include "verbs.h"

namespace convship::apps {
namespace {

using nlohmann::json;

struct StagesArguments {
  ModelArguments model;
  std::vector<std::filesystem::path> images;
  std::filesystem::path output;
};

// Per image: the arrays into the output file, their names and dtypes as a JSON line on stdout.
int write_stages(StagesArguments& arguments) {
  const auto files = image_files(arguments.images);
  const Model model = arguments.model.load();
  std::ofstream out(arguments.output, std::ios::binary);
  for (const auto& file : files) {
    const std::vector<char> bytes = read_bytes(file);
    Stages stages;
    try {
      stages = model.stages(std::as_bytes(std::span(bytes)));
    } catch (const Error& error) {
      throw Error(error.code(), file.string() + ": " + error.what());
    }
    json arrays = json::array();
    const auto write = [&](const std::string& name, const Tensor& tensor) {
      write_npy(out, tensor);
      arrays.push_back({{"name", name}, {"dtype", name_of(tensor.dtype())}});
    };
    write("pixels", stages.pixels);
    write("preprocessed", stages.preprocessed);
    for (const auto& [name, tensor] : stages.outputs) write("output." + name, tensor);
    write("probabilities", stages.probabilities);
    std::cout << json{{"path", file.string()}, {"arrays", arrays}}.dump(
                     -1, ' ', false, json::error_handler_t::replace)
              << '\n';
  }
  out.flush();
  if (!out) throw Error(ErrorCode::environment, arguments.output.string() + ": cannot be written");
  return kOk;
}

}  // namespace

Action add_stages(CLI::App& verb) {
  auto arguments = std::make_shared<StagesArguments>();
  arguments->model.add_to(verb);
  verb.add_option("images", arguments->images, "JPEG and PNG files, and folders of them")
      ->required();
  verb.add_option("--output", arguments->output, "File of concatenated .npy arrays")->required();
  return [arguments] { return write_stages(*arguments); };
}

}  // namespace convship::apps
