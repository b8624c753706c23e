// How a batch goes through a network: the first layers take few of its images at a time, so
// that what they hand on stays in the cache; the layers behind, whose images are small and
// whose weights are large, take all of them, and read their weights once.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/network.h"

namespace convship::plan {

struct MicroBatch {
  int instructions = 0;  // the first ones of the network
  int64_t images = 0;    // that these take at a time; the last ones may be fewer
};

// The split that moves the fewest bytes between the second-level cache and what lies behind
// it. Empty where the whole batch fits into the cache.
MicroBatch choose_micro_batch(const Network& network, const std::vector<Size>& sizes);

}  // namespace convship::plan
