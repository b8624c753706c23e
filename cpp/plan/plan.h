// A network made ready for one size of input: its layers as steps, with places
// in one block of memory.
//
// Between steps, images are [N, ceil(C / 16), H, W, 16], which the kernels read
// and write fastest; inputs are read where they are, outputs are dense NCHW.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "kernels/parallel.h"
#include "plan/network.h"

namespace convship::plan {

struct Step;

class Plan {
 public:
  // Throws std::invalid_argument when the sizes do not fit the network, which
  // must outlive the plan.
  Plan(const Network& network, std::vector<Size> inputs);
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const std::vector<Size>& inputs() const { return inputs_; }
  const std::vector<Size>& outputs() const { return outputs_; }
  // Floats that a call needs, from an address that is aligned to a cache line.
  int64_t memory() const { return memory_; }

  // Outputs are dense. Thread-safe; calls that run at once need a memory each.
  // The active instruction set must have loops over vectors (has_loops()).
  void run(std::span<const kernels::conv2d::View<const float>> inputs,
           std::span<float* const> outputs,
           float* memory,
           const kernels::Parallel& parallel) const;

  // One line a step: what runs there, sizes, milliseconds of this call.
  struct Timing {
    std::string step;
    double milliseconds;
  };
  std::vector<Timing> profile(std::span<const kernels::conv2d::View<const float>> inputs,
                              std::span<float* const> outputs,
                              float* memory,
                              const kernels::Parallel& parallel) const;

 private:
  std::vector<Size> inputs_, outputs_;
  std::vector<Step> steps_;
  int64_t memory_ = 0;
};

// Whether the active instruction set can run plans.
bool has_loops();

}  // namespace convship::plan
