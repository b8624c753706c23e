#include "cpu_features.h"

#include <sys/utsname.h>

#include <fstream>
#include <set>
#include <sstream>

#include "printable.h"

namespace convship::runtime {
namespace {

// The kernel lists what it supports too: a CPU may have registers that it does
// not save.
std::set<std::string> features() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const bool flags = line.starts_with("flags") || line.starts_with("Features");
    if (!flags || line.find(':') == std::string::npos) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    std::set<std::string> found;
    for (std::string word; words >> word;) found.insert(word);
    return found;
  }
  return {};
}

}  // namespace

std::string cpu_problem(const CompiledFor& compiled_for) {
  utsname system{};
  ::uname(&system);
  if (compiled_for.machine != system.machine) {
    return "it was compiled for " + printable(compiled_for.machine) + " CPUs, this one is " +
           system.machine;
  }
  const std::set<std::string> present = features();
  std::string missing;
  for (const std::string& feature : compiled_for.features) {
    if (!present.contains(feature)) missing += (missing.empty() ? "" : ", ") + printable(feature);
  }
  return missing.empty() ? ""
                         : "it was compiled for CPUs with " + missing + ", which this one lacks";
}

}  // namespace convship::runtime
