#include "process_state.h"

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

namespace convship::testing {
namespace {

std::int64_t entries(const char* folder) {
  return std::distance(std::filesystem::directory_iterator(folder), {});
}

}  // namespace

std::int64_t thread_count() { return entries("/proc/self/task"); }

std::int64_t settled_thread_count() {
  std::int64_t before = thread_count();
  for (int i = 0; i < 100; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const std::int64_t now = thread_count();
    if (now == before) break;
    before = now;
  }
  return before;
}

std::int64_t open_files() { return entries("/proc/self/fd"); }

std::int64_t resident_bytes() {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

std::set<std::string> openmp_runtimes() {
  std::set<std::string> found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const std::string name = line.substr(line.rfind('/') + 1);
    for (const char* prefix : {"libgomp", "libiomp", "libomp"}) {
      if (name.starts_with(prefix)) found.insert(name);
    }
  }
  return found;
}

}  // namespace convship::testing
