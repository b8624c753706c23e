// Children that are forked after a model was loaded: the threads of LibTorch's
// OpenMP pool are not there, and whoever waits for them waits for ever.
#pragma once

namespace convship::runtime {

// From now on, forks are noticed.
void watch_forks();
bool is_forked_child();
// In such a child, makes this thread's calls of LibTorch run on it alone.
void settle_after_fork();

}  // namespace convship::runtime
