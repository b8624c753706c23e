// Runs what our kernels serve of a frozen network by plans.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <string>
#include <vector>

#include "convship/export.h"
#include "ops/planned.h"

namespace convship::ops {

struct Lowered {
  std::vector<c10::intrusive_ptr<Planned>> parts;
  // forward is the one part, from its inputs in order to its one tensor, and
  // needs no interpreter.
  bool whole = false;
  // What stays with LibTorch: its operators, and how often.
  std::vector<std::pair<std::string, int>> left;
};

// Rewrites forward of a frozen module: parts that plans serve become calls of
// them. Anything else stays as it is, and so do the answers but for rounding.
// rounds_freely: to bfloat16, where that is as fast as not to. Else, what the
// graph rounds to bfloat16 is rounded.
// expected: sides of the images that it will see. Where a branch, or a table, depends on them,
// sizes that make another of it are lowered for when they come first.
CONVSHIP_API Lowered lower(torch::jit::Module& frozen, bool rounds_freely, plan::Pair expected);

}  // namespace convship::ops
