// Methods of TorchScript modules, and what is known of them before they run.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <vector>

#include "convship/model.h"

namespace convship::runtime {

// By LibTorch's interpreter. With Backend::convship as the graph is: the executor that
// otherwise watches the first calls and rewrites the graph takes 40 ms and more for that, and
// gains nothing on graphs that are frozen (vision transformers took a sixth longer).
c10::IValue call_method(const torch::jit::Module& module,
                        const char* method,
                        std::vector<c10::IValue> arguments,
                        Backend backend);

// Whether the method reads or writes attributes or buffers (a cache, a counter), of a frozen
// module: freezing makes constants of all that are only read.
bool keeps_state(const torch::jit::Module& frozen, const char* method);
// Whether nobody could tell that it was called: it keeps no state, prints nothing and draws no
// random numbers.
bool is_pure(const torch::jit::Module& frozen, const char* method);

}  // namespace convship::runtime
