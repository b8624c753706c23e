// Where a measurement took place: without it, numbers mean nothing.
#pragma once

#include <nlohmann/json.hpp>

namespace convship::apps {

// The fields that `convship bench` writes too.
nlohmann::json bench_environment(int threads);
// What makes the numbers of this build or moment unfair, a line each.
nlohmann::json bench_warnings(const nlohmann::json& environment);

}  // namespace convship::apps
