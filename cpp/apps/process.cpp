#include "process.h"

#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string>

namespace convship::apps {

double milliseconds_since_start() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  // The program's name is field 2, in parentheses, and may hold spaces.
  std::istringstream fields(line.substr(std::min(line.rfind(')') + 1, line.size())));
  constexpr int kFirst = 3, kStartTime = 22;
  std::string field;
  for (int i = kFirst; i <= kStartTime; ++i) fields >> field;
  timespec now{};
  if (!fields || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
  const double started = std::stod(field) / static_cast<double>(sysconf(_SC_CLK_TCK));
  const double seconds = static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
  return std::max(0.0, (seconds - started) * 1e3);
}

std::vector<std::filesystem::path> loaded_libraries() {
  std::vector<std::filesystem::path> paths;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* found) {
        if (info->dlpi_name != nullptr && info->dlpi_name[0] != '\0') {
          static_cast<std::vector<std::filesystem::path>*>(found)->emplace_back(info->dlpi_name);
        }
        return 0;
      },
      &paths);
  return paths;
}

}  // namespace convship::apps
