// How many threads a call may use: what the scheduler and the container allow,
// which LibTorch's own default (all cores of the machine) does not ask.
#include <ATen/Parallel.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <string>

#include "convship/model.h"
#include "forks.h"

namespace convship {
namespace {

int affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

using Quota = std::optional<double>;  // CPUs

Quota smaller(Quota a, Quota b) { return a && b ? std::min(a, b) : (a ? a : b); }

// cgroup v2: "max 100000" or "200000 100000" in cpu.max of our group and those
// above it.
Quota cgroup2_quota() {
  Quota least;
  std::ifstream groups("/proc/self/cgroup");
  std::string line, path;
  while (std::getline(groups, line)) {
    if (line.starts_with("0::")) path = line.substr(3);
  }
  for (;;) {
    std::ifstream file("/sys/fs/cgroup" + path + "/cpu.max");
    double quota = 0, period = 0;  // "max" is no number: there is no limit
    if (file >> quota >> period && quota > 0 && period > 0) {
      least = smaller(least, quota / period);
    }
    const std::size_t slash = path.find_last_of('/');
    if (path.empty() || slash == std::string::npos) break;
    path.resize(slash);
  }
  return least;
}

Quota cgroup1_quota() {
  double quota = -1, period = 0;
  std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
  std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  return quota > 0 && period > 0 ? Quota(quota / period) : Quota();
}

}  // namespace

CpuLimits cpu_limits() { return {affinity(), smaller(cgroup1_quota(), cgroup2_quota())}; }

int default_threads() {
  const CpuLimits limits = cpu_limits();
  if (!limits.quota) return limits.affinity;
  return std::clamp(static_cast<int>(std::ceil(*limits.quota)), 1, limits.affinity);
}

void set_threads(int threads) {
  if (threads < 1) {
    throw Error(ErrorCode::usage, "threads must be at least 1, got " + std::to_string(threads));
  }
  at::set_num_threads(runtime::is_forked_child() ? 1 : threads);
}

int threads() { return at::get_num_threads(); }

}  // namespace convship
