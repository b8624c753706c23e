#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/version.h>

#include <limits>

#include "convship/isa.h"
#include "convship/model.h"
#include "convship/ops.h"
#include "torch_version.h"

namespace convship {
namespace {

bool flushes_denormals() {
  volatile float tiny = std::numeric_limits<float>::min();
  tiny = tiny / 2;
  return tiny == 0;
}

}  // namespace

namespace runtime {

std::string loaded_torch_version() {
  // From the top byte down: major, minor, patch.
  const std::uint64_t version = aoti_torch_abi_version();
  const auto byte = [&](int index) { return std::to_string((version >> (56 - 8 * index)) & 255); };
  return byte(0) + "." + byte(1) + "." + byte(2);
}

}  // namespace runtime

Build build() {
  Build found;
  found.convship = CONVSHIP_VERSION;
  found.torch = TORCH_VERSION;
  found.torch_loaded = runtime::loaded_torch_version();
  found.torch_problem = runtime::torch_mismatch(found.torch, found.torch_loaded);
  // Calling into the op library also keeps the linker from dropping it: nothing
  // else refers to a library whose work is to register operators.
  found.isa = active_isa();
  found.isas = available_isas();
  found.compiler = "gcc " __VERSION__;
  found.flushes_denormals = flushes_denormals();
  return found;
}

}  // namespace convship
