#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "image_files.h"
#include "verbs.h"

namespace convship::apps {
namespace {

using nlohmann::json;

struct Arguments {
  ModelArguments model;
  std::vector<std::filesystem::path> images;
  int top_k = 1;
};

// Paths need not be UTF-8, JSON must be: bytes that are not become U+FFFD.
void print_json(const json& line) {
  std::cout << line.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
}

void print_predictions(const std::string& path,
                       const std::vector<Prediction>& predictions,
                       bool as_json) {
  if (as_json) {
    json list = json::array();
    for (const Prediction& each : predictions) {
      list.push_back(
          {{"label", each.label}, {"index", each.index}, {"probability", each.probability}});
    }
    print_json({{"path", path}, {"predictions", std::move(list)}});
    return;
  }
  std::cout << path << ':';
  const char* separator = " ";
  for (const Prediction& each : predictions) {
    std::cout << separator << each.label << ' ' << std::fixed << std::setprecision(4)
              << each.probability;
    separator = ", ";
  }
  std::cout << '\n';
}

// One bad image does not cost the answers of the others: it is reported, and
// the exit code says so at the end.
int predict(Arguments& arguments) {
  const auto files = image_files(arguments.images);
  const Model model = arguments.model.load();
  int code = kOk;
  for (const auto& file : files) {
    try {
      print_predictions(file.string(), model.predict_file(file, arguments.top_k),
                        arguments.model.json);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::image) throw;
      std::cerr << "convship-run: " << error.what() << '\n';
      if (arguments.model.json) print_json({{"path", file.string()}, {"error", error.what()}});
      code = static_cast<int>(ErrorCode::image);
    }
    if (!std::cout) break;
  }
  return code;
}

}  // namespace

Action add_predict(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  arguments->model.add_to(verb);
  verb.add_option("images", arguments->images, "JPEG and PNG files, and folders of them")
      ->required();
  verb.add_option("--top-k", arguments->top_k, "How many classes to print")
      ->check(CLI::Range(1, 1'000'000));
  return [arguments] { return predict(*arguments); };
}

}  // namespace convship::apps
