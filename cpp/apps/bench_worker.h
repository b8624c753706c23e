// One rung of the ladder in a process of its own. `convship bench` and the verb
// bench start it, read a line about load and first call, and then ask by lines:
//   measure WHAT SECONDS CALLERS         ->  {"us": [one per call]}
//   write FOLDER                         ->  {"outputs": [{"name", "path"}]}
// WHAT is network, end_to_end (from the image's bytes to classes) or from_pixels
// (from its decoded pixels to classes); so many threads call it at once. What fails is {"error",
// "code"}, and the end.
#pragma once

#include <filesystem>

#include "bench_input.h"
#include "verbs.h"

namespace convship::apps {

int bench_worker(ModelArguments& model,
                 const BenchInput& input,
                 const std::filesystem::path& image);

}  // namespace convship::apps
