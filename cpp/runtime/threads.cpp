// How many threads a call may use: what the scheduler and the container allow,
// which LibTorch's own default (all cores of the machine) does not ask.
#include <ATen/Parallel.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

#include "convship/model.h"

namespace convship {
namespace {

int affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

// CPUs that the quota allows, rounded up; `limit` without one. cgroup v2:
// "max 100000" or "200000 100000" in cpu.max of our group and those above it.
int cgroup2_quota(int limit) {
  std::ifstream groups("/proc/self/cgroup");
  std::string line, path;
  while (std::getline(groups, line)) {
    if (line.starts_with("0::")) path = line.substr(3);
  }
  for (;;) {
    std::ifstream file("/sys/fs/cgroup" + path + "/cpu.max");
    std::string quota;
    double period = 0;
    if (file >> quota >> period && quota != "max" && period > 0) {
      limit = std::min(limit, static_cast<int>(std::ceil(std::stod(quota) / period)));
    }
    const std::size_t slash = path.find_last_of('/');
    if (path.empty() || slash == std::string::npos) break;
    path.resize(slash);
  }
  return limit;
}

int cgroup1_quota(int limit) {
  double quota = -1, period = 0;
  std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
  std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  if (quota > 0 && period > 0) limit = std::min(limit, static_cast<int>(std::ceil(quota / period)));
  return limit;
}

}  // namespace

int default_threads() { return std::max(1, cgroup1_quota(cgroup2_quota(affinity()))); }

void set_threads(int threads) {
  if (threads < 1) {
    throw Error(ErrorCode::usage, "threads must be at least 1, got " + std::to_string(threads));
  }
  at::set_num_threads(threads);
}

int threads() { return at::get_num_threads(); }

}  // namespace convship
