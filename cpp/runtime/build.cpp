#include <torch/headeronly/version.h>

#include "convship/isa.h"
#include "convship/model.h"
#include "convship/ops.h"

namespace convship {

Build build() {
  // Calling into the op library also keeps the linker from dropping it: nothing
  // else refers to a library whose work is to register operators.
  return {CONVSHIP_VERSION, TORCH_VERSION, active_isa()};
}

}  // namespace convship
