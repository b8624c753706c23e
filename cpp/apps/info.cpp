#include <cmath>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench_input.h"
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

json names(const std::vector<TensorInfo>& tensors) {
  json list = json::array();
  for (const TensorInfo& tensor : tensors) list.push_back(tensor.name);
  return list;
}

struct PlanArguments {
  ModelArguments model;
  bool plan = false;
  BenchInput input;
};

// What runs where for one size of input.
json plan_of(const Model& model, const PlanArguments& arguments) {
  std::vector<NamedTensor> tensors = arguments.input.make(model, arguments.model.path.string());
  std::vector<NamedView> views;
  for (const NamedTensor& t : tensors) views.push_back({t.name, t.tensor.view()});
  const PlanReport report = model.plan(views);
  json steps = json::array(), left = json::object();
  for (const PlanStep& step : report.steps) {
    steps.push_back({{"step", step.name}, {"ms", step.milliseconds}});
  }
  for (const auto& [name, count] : report.left_to_libtorch) left[name] = count;
  return {{"whole", report.whole}, {"steps", steps}, {"left_to_libtorch", left}};
}

void print_plan(const json& plan) {
  if (plan["steps"].empty()) {
    std::cout << "plan      no step: LibTorch answers inputs of this size\n";
    return;
  }
  double total = 0;
  for (const json& step : plan["steps"]) total += step["ms"].get<double>();
  std::cout << "plan      " << plan["steps"].size() << " steps, "
            << (plan["whole"].get<bool>() ? "the whole network" : "parts of the network")
            << std::fixed << std::setprecision(3) << ", " << total << " ms\n";
  for (const json& step : plan["steps"]) {
    std::cout << std::setw(12) << step["ms"].get<double>() << " ms  "
              << step["step"].get<std::string>() << '\n';
  }
  if (plan["left_to_libtorch"].empty()) return;
  std::cout << "LibTorch ";
  for (const auto& [name, count] : plan["left_to_libtorch"].items()) {
    std::cout << ' ' << name << " x" << count;
  }
  std::cout << '\n';
}

json describe(const ModelArguments& arguments, const Model& model, double start_ms) {
  const Build built = build();
  const json manifest = model.manifest().empty() ? json(nullptr) : json::parse(model.manifest());
  return {{"path", arguments.path.string()},
          {"kind", manifest.is_null() ? "plain TorchScript" : "convship"},
          {"sha256", model.file().sha256},
          {"bytes", model.file().size},
          {"manifest", manifest},
          {"inputs", names(model.inputs())},
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
            << described["kind"].get<std::string>() << ")\n"
            << "sha256    " << described["sha256"].get<std::string>() << ", " << described["bytes"]
            << " bytes\n";
  const json& manifest = described["manifest"];
  if (manifest.is_null()) {
    std::cout << "inputs    ";
    const char* separator = "";
    for (const json& name : described["inputs"]) {
      std::cout << separator << name.get<std::string>();
      separator = ", ";
    }
    std::cout << " (the file tells neither dtypes nor shapes)\n";
  } else {
    std::cout << "written   by convship " << manifest["convship"].get<std::string>() << ", torch "
              << manifest["torch"].get<std::string>() << '\n'
              << "inputs    " << tensors(manifest["inputs"]) << '\n'
              << "outputs   " << tensors(manifest["outputs"]) << '\n'
              << "labels    " << manifest["labels"].size() << '\n'
              << "ops       "
              << (manifest["required_ops"].empty() ? "LibTorch's own"
                                                   : manifest["required_ops"].dump())
              << '\n'
              << "precision " << manifest.value("precision", "float32") << '\n'
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
  auto arguments = std::make_shared<PlanArguments>();
  arguments->model.add_to(verb);
  verb.add_flag("--plan", arguments->plan,
                "What our kernels run, step by step with its time, and what LibTorch runs");
  verb.add_option("--batch", arguments->input.batch, "Images per call of the plan")
      ->check(CLI::Range(1, 4096));
  verb.add_option("--size", arguments->input.size,
                  "Input of one image, 224, 240x320 or 3x240x320, where the file does not say");
  return [arguments] {
    const double start_ms = milliseconds_since_start();
    const Model model = arguments->model.load();
    json described = describe(arguments->model, model, start_ms);
    if (arguments->plan) described["plan"] = plan_of(model, *arguments);
    if (arguments->model.json) {
      std::cout << described.dump() << '\n';
    } else {
      print(described);
      if (arguments->plan) print_plan(described["plan"]);
    }
    return kOk;
  };
}

}  // namespace convship::apps
