#include "ops/parallel.h"

#include <ATen/Parallel.h>
#include <pthread.h>

#include <atomic>

#ifndef _OPENMP
#error "at::parallel_for runs serially without OpenMP"
#endif

namespace convship::ops {
namespace {

std::atomic<bool> forked = false;

class TorchThreads final : public kernels::Parallel {
 public:
  TorchThreads() {
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
  }

  int width() const override { return forked ? 1 : at::get_num_threads(); }

  void run(int64_t count, int64_t grain, kernels::RangeBody body) const override {
    if (forked) {
      kernels::Serial().run(count, grain, body);
    } else {
      at::parallel_for(0, count, grain, body);
    }
  }
};

}  // namespace

const kernels::Parallel& torch_threads() {
  static const TorchThreads threads;
  return threads;
}

}  // namespace convship::ops
