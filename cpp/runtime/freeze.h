// A network as its weights make it: one graph, without what training needed.
#pragma once

#include <torch/csrc/jit/api/module.h>

namespace convship::runtime {

// Inlines, folds constants and batch norms. Here and not at export: a frozen
// file no longer opens everywhere. The method predict is left behind: it is
// softmax(forward(preprocess(x))) by definition, and would hold a second copy
// of every folded weight.
torch::jit::Module freeze_network(const torch::jit::Module& module);

}  // namespace convship::runtime
