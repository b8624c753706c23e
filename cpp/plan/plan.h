// A network made ready for one size of input: its layers as steps, with places
// in one block of memory.
//
// Between steps, images are [N, ceil(C / 16), H, W, 16], which the kernels read
// and write fastest; inputs are read where they are, outputs are dense NCHW.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/parallel.h"
#include "plan/micro_batch.h"
#include "plan/network.h"

namespace convship::plan {

struct Step;

class Plan {
 public:
  // Throws std::invalid_argument when the sizes do not fit the network, which
  // must outlive the plan.
  // micro_batch: choose_micro_batch's where none is given; no bit depends on it.
  Plan(const Network& network,
       std::vector<Size> inputs,
       const std::optional<MicroBatch>& micro_batch = {});
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const std::vector<Size>& inputs() const { return inputs_; }
  const std::vector<Size>& outputs() const { return outputs_; }
  // Floats that a call needs, from an address that is aligned to a cache line, where it may
  // use so many threads: with fewer it uses fewer.
  int64_t memory(int threads) const;

  // Outputs are dense. Thread-safe; calls that run at once need a memory each.
  // The active instruction set must have loops over vectors (has_loops()).
  void run(std::span<const kernels::conv2d::View<const float>> inputs,
           std::span<float* const> outputs,
           std::span<float> memory,
           const kernels::Parallel& parallel) const;

  // One line a step: what runs there, sizes, milliseconds of this call.
  struct Timing {
    std::string step;
    double milliseconds;
  };
  std::vector<Timing> profile(std::span<const kernels::conv2d::View<const float>> inputs,
                              std::span<float* const> outputs,
                              std::span<float> memory,
                              const kernels::Parallel& parallel) const;

 private:
  // Micro-batches that threads may work on at once.
  int64_t turns() const;
  template <typename Visit>
  void visit(std::span<const kernels::conv2d::View<const float>> inputs,
             std::span<float* const> outputs,
             std::span<float> memory,
             const kernels::Parallel& parallel,
             const Visit& visit) const;

  std::vector<Size> inputs_, outputs_;
  MicroBatch micro_batch_;
  // The first instructions, for a micro-batch and for the smaller one at the end; the rest.
  std::vector<Step> first_, first_of_last_, steps_;
  int64_t memory_ = 0, micro_batch_memory_ = 0;
};

// Whether the active instruction set can run plans.
bool has_loops();

}  // namespace convship::plan
