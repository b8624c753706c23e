#include "bench_worker.h"

#include <signal.h>
#include <sys/prctl.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <sstream>

#include "image_files.h"
#include "npy.h"

namespace convship::apps {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

std::vector<double> measure(const std::function<void()>& call, double seconds) {
  call();  // not counted: a neighbour has had the caches since our last turn
  std::vector<double> microseconds;
  const auto begin = Clock::now();
  const auto end = begin + std::chrono::duration<double>(seconds);
  // One reading of the clock per call: where one call ends, the next begins.
  for (auto start = begin; microseconds.empty() || start < end;) {
    call();
    const auto stop = Clock::now();
    microseconds.push_back(std::chrono::duration<double, std::micro>(stop - start).count());
    start = stop;
  }
  return microseconds;
}

std::vector<double> measure(const std::function<void()>& call, double seconds, int callers) {
  std::vector<std::future<std::vector<double>>> others;
  for (int other = 1; other < callers; ++other) {
    others.push_back(std::async(std::launch::async, [&] { return measure(call, seconds); }));
  }
  std::vector<double> all = measure(call, seconds);
  for (auto& other : others) {
    const std::vector<double> calls = other.get();  // or what its call threw
    all.insert(all.end(), calls.begin(), calls.end());
  }
  return all;
}

// An image as a camera or a video would give it.
struct Picture {
  std::vector<std::uint8_t> rgb;
  std::int64_t height = 0;
  std::int64_t width = 0;

  PixelView view() const { return {rgb.data(), height, width}; }
};

Picture decode(const Model& model, std::span<const char> encoded) {
  const Tensor pixels = model.stages(std::as_bytes(encoded)).pixels;  // [3, H, W]
  const auto planes = pixels.values<std::uint8_t>();
  Picture picture{{}, pixels.shape()[1], pixels.shape()[2]};
  const std::size_t area = planes.size() / 3;
  for (std::size_t i = 0; i < planes.size(); ++i) {
    picture.rgb.push_back(planes[i % 3 * area + i / 3]);
  }
  return picture;
}

// What the file's layers multiply.
std::string precision_of(const std::string& manifest) {
  return manifest.empty() ? "float32" : json::parse(manifest).value("precision", "float32");
}

json write_outputs(const std::vector<NamedTensor>& outputs, const std::filesystem::path& folder) {
  json list = json::array();
  for (const auto& [name, tensor] : outputs) {
    const auto path = folder / (std::to_string(list.size()) + ".npy");
    std::ofstream out(path, std::ios::binary);
    write_npy(out, tensor);
    out.flush();
    if (!out) throw Error(ErrorCode::environment, path.string() + ": cannot be written");
    list.push_back({{"name", name}, {"path", path.string()}});
  }
  return {{"outputs", list}};
}

int serve(ModelArguments& arguments, const BenchInput& input, const std::filesystem::path& image) {
  const std::vector<char> encoded = image.empty() ? std::vector<char>() : read_bytes(image);
  auto start = Clock::now();
  const Model model = arguments.load();
  const double load_us = microseconds_since(start);
  const std::vector<NamedTensor> tensors = input.make(model, arguments.path.string());
  std::vector<NamedView> views;
  for (const NamedTensor& each : tensors) views.push_back({each.name, each.tensor.view()});
  start = Clock::now();
  model.run(views);
  const double first_us = microseconds_since(start);

  std::optional<Picture> picture;  // later: its memory is not the network's
  const std::map<std::string, std::function<void()>> calls{
      {"network", [&] { model.run(views); }},
      {"from_pixels", [&] { model.predict_pixels(picture->view()); }},
      {"end_to_end", [&] { model.predict_encoded(std::as_bytes(std::span(encoded))); }}};
  std::cout << json{{"load_us", load_us},
                    {"first_us", first_us},
                    {"threads", threads()},
                    {"isa", build().isa}}
                   .dump()
            << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string verb, what;
    words >> verb >> what;
    json answer;
    if (verb == "measure" && calls.contains(what)) {
      double seconds = 0;
      int callers = 1;
      words >> seconds >> callers;
      if (what == "from_pixels" && !picture) picture = decode(model, encoded);
      answer = {{"us", measure(calls.at(what), seconds, callers)}};
    } else if (verb == "write") {
      answer = write_outputs(model.run(views), what);
      answer["precision"] = precision_of(model.manifest());
    } else {
      throw Error(ErrorCode::usage,
                  "bench: a worker is asked to measure or write, got '" + line + "'");
    }
    std::cout << answer.dump() << std::endl;
  }
  return kOk;
}

}  // namespace

int bench_worker(ModelArguments& arguments,
                 const BenchInput& input,
                 const std::filesystem::path& image) {
  // Between turns this process is stopped: it would not notice that nobody is left to ask.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  try {
    return serve(arguments, input, image);
  } catch (const Error& error) {
    // Whoever asked reports it, once.
    std::cout << json{{"error", error.what()}, {"code", error.code()}}.dump() << std::endl;
    return static_cast<int>(error.code());
  }
}

}  // namespace convship::apps
