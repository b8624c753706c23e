// What Linux says about this process.
#pragma once

#include <filesystem>
#include <vector>

namespace convship::apps {

// Since the kernel made the process: dynamic linking and LibTorch's start are
// over before main begins. Counted in steps of 10 ms; 0 where unknown.
double milliseconds_since_start();

// The shared libraries that are loaded, as the loader names them.
std::vector<std::filesystem::path> loaded_libraries();

}  // namespace convship::apps
