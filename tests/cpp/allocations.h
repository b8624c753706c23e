// Allocations with operator new, counted and made to fail: in the thread that
// asks for it and no other.
#pragma once

#include <cstdint>

namespace convship::testing {

// All allocations of this thread fail, after `allowed` that do not, once: the
// next ones succeed again, as handlers of the failure need some.
class FailingAllocations {
 public:
  explicit FailingAllocations(std::int64_t allowed);
  ~FailingAllocations();
  FailingAllocations(const FailingAllocations&) = delete;
  FailingAllocations& operator=(const FailingAllocations&) = delete;
};

// How many failed so far, in this thread.
std::int64_t failed_allocations();

}  // namespace convship::testing
