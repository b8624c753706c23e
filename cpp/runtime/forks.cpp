#include "forks.h"

#include <ATen/Parallel.h>
#include <pthread.h>

#include <atomic>

namespace convship::runtime {
namespace {

std::atomic<bool> forked = false;

}  // namespace

void watch_forks() {
  static const int once = pthread_atfork(nullptr, nullptr, [] { forked = true; });
  static_cast<void>(once);
}

bool is_forked_child() { return forked; }

void settle_after_fork() {
  // OpenMP counts threads for each thread that calls it.
  static thread_local bool settled = false;
  if (!forked || settled) return;
  at::set_num_threads(1);
  settled = true;
}

}  // namespace convship::runtime
