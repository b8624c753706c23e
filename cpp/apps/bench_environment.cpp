#include "bench_environment.h"

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "convship/model.h"

namespace convship::apps {
namespace {

using nlohmann::json;

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";  // as on ARM, where the kernel gives no name
}

json flags() {
  json found = json::array();
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("flags") && !line.starts_with("Features")) continue;
    std::istringstream words(line);
    for (std::string word; words >> word;) {
      for (const char* known : {"avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16"}) {
        if (word == known) found.push_back(word);
      }
    }
    break;
  }
  return found;
}

double load_average() {
  double value = 0;
  std::ifstream("/proc/loadavg") >> value;
  return value;
}

}  // namespace

json bench_environment(int threads) {
  const Build built = build();
#ifdef NDEBUG
  constexpr const char* kBuildType = "Release";
#else
  constexpr const char* kBuildType = "Debug";
#endif
  return {{"cpu", processor()},
          {"cpu_flags", flags()},
          {"cores", std::thread::hardware_concurrency()},
          {"threads", threads},
          {"isa", built.isa},
          {"build", {{"build_type", kBuildType}, {"compiler", "GNU " __VERSION__}}},
          {"versions", {{"convship", built.convship}, {"torch", built.torch}}},
          {"load_before", load_average()}};
}

json bench_warnings(const json& environment) {
  json warnings = json::array();
  if (environment["build"]["build_type"] != "Release") {
    warnings.push_back(
        "debug build: convship was built without optimisation; build it with "
        "CMAKE_BUILD_TYPE=Release");
  }
  constexpr double kBusy = 0.5;
  if (environment["load_before"].get<double>() > kBusy * environment["cores"].get<double>()) {
    warnings.push_back(
        "busy machine: other programs were running before the start; close them "
        "and measure again");
  }
  return warnings;
}

}  // namespace convship::apps
