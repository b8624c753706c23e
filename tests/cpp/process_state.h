// What a process holds, as /proc tells: for tests that it comes back to its start.
#pragma once

#include <cstdint>
#include <set>
#include <string>

namespace convship::testing {

std::int64_t thread_count();
// Once nothing changes any more: OpenMP's threads end a moment after the thread
// that they worked for, and nobody can join them.
std::int64_t settled_thread_count();
std::int64_t open_files();
std::int64_t resident_bytes();
// File names of all OpenMP runtimes that are mapped; two would fight over cores.
std::set<std::string> openmp_runtimes();

}  // namespace convship::testing
