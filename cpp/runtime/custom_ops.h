#pragma once

#include <set>
#include <string>
#include <string_view>

namespace convship::runtime {

// Operators that TorchScript source calls and torch itself does not bring:
// LibTorch writes those as ops.NAMESPACE.NAME(...). Adds "NAMESPACE::NAME".
void collect_custom_ops(std::string_view source, std::set<std::string>& ops);

}  // namespace convship::runtime
