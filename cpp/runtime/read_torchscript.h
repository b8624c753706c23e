// A TorchScript archive in memory as a module.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <cstddef>
#include <span>

namespace convship::runtime {

// Checked bytes, which LibTorch reads in place. In evaluation mode, on the CPU;
// what the module prints goes to the log. Throws what LibTorch throws.
torch::jit::Module read_torchscript(std::span<const std::byte> bytes);

}  // namespace convship::runtime
