// A network backend that runs nothing of LibTorch's interpreter and fails when it
// is told to. A test that links it instead of torchscript_backend.cpp has all of
// the runtime around it.
//
// A classifier answers with the sums of its channels, anything else with its
// first input, as "sum".
#pragma once

namespace convship::testing {

enum class Step { none, load, input_names, forward, preprocess };
enum class Thrown { torch_error, bad_alloc, length_error, integer };

// From now on, `step` throws; Step::none: nothing does.
void fail_at(Step step, Thrown thrown = Thrown::integer);

}  // namespace convship::testing
