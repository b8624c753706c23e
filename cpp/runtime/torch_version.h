#pragma once

#include <string>

namespace convship::runtime {

// Of the LibTorch in this process: "2.13.0".
std::string loaded_torch_version();

// Empty where a build for LibTorch `built` may run with LibTorch `loaded`, whose
// C++ ABI changes with the minor version; otherwise what is wrong.
std::string torch_mismatch(const std::string& built, const std::string& loaded);

}  // namespace convship::runtime
