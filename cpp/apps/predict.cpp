#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base64.h"
#include "image_files.h"
#include "verbs.h"

namespace convship::apps {
namespace {

using nlohmann::json;

struct PredictArguments {
  ModelArguments model;
  std::vector<std::filesystem::path> images;
  int top_k = 1;
};

// Paths need not be UTF-8, JSON must be: bytes that are not become U+FFFD.
void print_json(const json& line) {
  std::cout << line.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
}

json to_json(const std::vector<Prediction>& predictions) {
  json list = json::array();
  for (const Prediction& each : predictions) {
    list.push_back(
        {{"label", each.label}, {"index", each.index}, {"probability", each.probability}});
  }
  return list;
}

void print_predictions(const std::string& path,
                       const std::vector<Prediction>& predictions,
                       bool as_json) {
  if (as_json) {
    print_json({{"path", path}, {"predictions", to_json(predictions)}});
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

// A line of the stream: a path, or an image after "base64:" or as a data URI.
std::vector<Prediction> answer(const Model& model, const std::string& line, int top_k) {
  constexpr std::string_view kPlain = "base64:", kUri = ";base64,";
  std::size_t begin = line.starts_with(kPlain) ? kPlain.size() : 0;
  if (line.starts_with("data:image/")) {
    const std::size_t found = line.find(kUri);
    begin = found == std::string::npos ? 0 : found + kUri.size();
  }
  if (line.empty()) throw Error(ErrorCode::image, "a line must be a path or an image, got none");
  if (begin == 0) return model.predict_file(line, top_k);
  const auto bytes = decode_base64(std::string_view(line).substr(begin));
  if (!bytes) throw Error(ErrorCode::image, "the line is no valid base64");
  return model.predict_encoded(std::span<const std::byte>(*bytes), top_k);
}

// For programs that keep this one as a child process: one line in, one JSON line
// out at once, until the input ends.
int predict_stream(const PredictArguments& arguments, const Model& model) {
  int code = kOk;
  std::string line;
  while (std::cout && std::getline(std::cin, line)) {
    if (line.ends_with('\r')) line.pop_back();
    json reply = json::object();
    if (!line.starts_with("base64:") && !line.starts_with("data:image/")) reply["path"] = line;
    try {
      reply["predictions"] = to_json(answer(model, line, arguments.top_k));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::image) throw;
      reply["error"] = error.what();
      code = static_cast<int>(ErrorCode::image);
    }
    print_json(reply);
    std::cout.flush();
  }
  return code;
}

// One bad image does not cost the answers of the others: it is reported, and
// the exit code says so at the end.
int predict(PredictArguments& arguments) {
  if (arguments.images == std::vector<std::filesystem::path>{"-"}) {
    return predict_stream(arguments, arguments.model.load());
  }
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
  auto arguments = std::make_shared<PredictArguments>();
  arguments->model.add_to(verb);
  verb.add_option("images", arguments->images,
                  "JPEG and PNG files and folders of them; or - for a stream: a path, or base64: "
                  "and an image, a line in, a JSON line out")
      ->required();
  verb.add_option("--top-k", arguments->top_k, "How many classes to print")
      ->check(CLI::Range(1, 1'000'000));
  return [arguments] { return predict(*arguments); };
}

}  // namespace convship::apps
