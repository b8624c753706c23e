// Where the values of a plan lie: which share memory, and when each is needed.
#pragma once

#include <optional>
#include <vector>

#include "plan/micro_batch.h"
#include "plan/network.h"

namespace convship::plan {

struct Place {
  enum class Where {
    memory,       // the plan's own, for all images
    micro_batch,  // the plan's own, for the images at hand
    input,        // where the caller has it, strided
    output,       // where the caller wants it, dense NCHW
  };
  Where where = Where::memory;
  int64_t offset = 0;  // floats; or the number of the input or output
  int64_t n_step = 0;  // from image to image, in memory

  // In blocks of 16 channels.
  bool in_memory() const { return where == Where::memory || where == Where::micro_batch; }
};

struct Places {
  std::vector<Place> values;
  // For inputs, a copy in memory as well, if something other than a
  // convolution reads them (offset -1: none).
  std::vector<Place> imported;
  int64_t memory = 0, micro_batch = 0;  // floats
};

// Inputs of concatenations are made where they are needed as far as possible,
// and values whose lives do not overlap share memory. What only the instructions of the
// micro-batch need has memory for its images alone.
Places find_places(const Network& network,
                   const std::vector<Size>& sizes,
                   const MicroBatch& micro_batch);

// Floats of an image: whole blocks of 16 channels.
int64_t image_floats(const Size& size);

// Where a layer leaves its first input's values where they are and shows those
// channels from this one on.
std::optional<int64_t> alias_channel(const Instruction& instruction,
                                     const std::vector<Size>& sizes);

}  // namespace convship::plan
