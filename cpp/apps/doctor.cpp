// What this machine and this installation have, and what is wrong with it.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "process.h"
#include "verbs.h"

namespace convship::apps {
namespace {

using nlohmann::json;

// A finding with what to do about it; `remedy` is empty where all is well.
struct Finding {
  std::string subject;
  std::string found;
  std::string remedy;
};

std::string path_of(const std::vector<std::filesystem::path>& libraries, const char* prefix) {
  for (const auto& path : libraries) {
    if (path.filename().string().starts_with(prefix)) return path.string();
  }
  return "not loaded";
}

Finding libtorch(const Build& built, const std::vector<std::filesystem::path>& libraries) {
  const std::string found = built.torch_loaded + " at " + path_of(libraries, "libtorch_cpu.so");
  return {"LibTorch", found, built.torch_problem};
}

Finding openmp(const std::vector<std::filesystem::path>& libraries) {
  std::string found;
  int count = 0;
  for (const auto& path : libraries) {
    const std::string name = path.filename().string();
    if (!name.starts_with("libgomp") && !name.starts_with("libiomp") &&
        !name.starts_with("libomp.") && !name.starts_with("libomp-")) {
      continue;
    }
    found += (count++ == 0 ? "" : ", ") + path.string();
  }
  if (count == 1) return {"OpenMP", found, ""};
  if (count == 0) return {"OpenMP", "none", "LibTorch runs on one thread without it"};
  return {"OpenMP", found,
          "several runtimes in one process fight for the CPUs; link all parts with one of them"};
}

std::string quota(const CpuLimits& limits) {
  return limits.quota ? json(*limits.quota).dump() : "none";
}

Finding cpus(const CpuLimits& limits) {
  return {"CPUs",
          std::to_string(std::thread::hardware_concurrency()) + " usable, affinity " +
              std::to_string(limits.affinity) + ", cgroup quota " + quota(limits) + ", so " +
              std::to_string(default_threads()) + " threads by default",
          ""};
}

Finding environment() {
  std::string found;
  for (const char* name : {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "CONVSHIP_ISA",
                           "CONVSHIP_ACCURACY", "LD_LIBRARY_PATH", "LD_PRELOAD"}) {
    const char* value = std::getenv(name);
    if (value != nullptr) found += (found.empty() ? "" : ", ") + std::string(name) + "=" + value;
  }
  return {"environment", found.empty() ? "nothing set that matters here" : found, ""};
}

std::vector<Finding> examine() {
  const Build built = build();
  const auto libraries = loaded_libraries();
  std::string isas;
  for (const auto& isa : built.isas) isas += (isas.empty() ? "" : ", ") + isa;
  return {
      {"convship",
       built.convship + " for LibTorch " + built.torch + ", " + built.compiler +
           ", C++11 ABI, at " + path_of(libraries, "libconvship.so"),
       ""},
      libtorch(built, libraries),
      openmp(libraries),
      cpus(cpu_limits()),
      {"instruction sets", isas + "; in use: " + built.isa, ""},
      {"denormals",
       built.flushes_denormals ? "taken for zero"
                               : "kept, as IEEE 754 says; tiny weights can slow a network down",
       ""},
      environment(),
  };
}

int doctor(bool as_json) {
  const std::vector<Finding> findings = examine();
  const bool healthy = std::all_of(findings.begin(), findings.end(),
                                   [](const Finding& each) { return each.remedy.empty(); });
  json list = json::array();
  for (const auto& [subject, found, remedy] : findings) {
    list.push_back({{"subject", subject},
                    {"ok", remedy.empty()},
                    {"found", found},
                    {"remedy", remedy.empty() ? json(nullptr) : json(remedy)}});
    if (as_json) continue;
    std::cout << (remedy.empty() ? "ok     " : "WRONG  ") << subject << ": " << found
              << (remedy.empty() ? "" : "; " + remedy) << '\n';
  }
  if (as_json) {
    std::cout << json{{"healthy", healthy}, {"findings", list}}.dump(-1, ' ', false,
                                                                     json::error_handler_t::replace)
              << '\n';
  }
  return healthy ? kOk : static_cast<int>(ErrorCode::environment);
}

}  // namespace

Action add_doctor(CLI::App& verb) {
  auto as_json = std::make_shared<bool>(false);
  verb.add_flag("--json", *as_json, "Results as JSON on stdout");
  return [as_json] { return doctor(*as_json); };
}

}  // namespace convship::apps
