#pragma once

#include <filesystem>
#include <vector>

namespace convship::runtime {

// Loads shared libraries that register operators with LibTorch, and keeps them:
// registrations cannot be taken back. Throws Error(environment).
void load_op_libraries(const std::vector<std::filesystem::path>& paths);

}  // namespace convship::runtime
