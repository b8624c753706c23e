#include "allocations.h"

#include <cstdlib>
#include <new>

namespace convship::testing {
namespace {

thread_local std::int64_t left = -1;  // until one fails; negative: none does
thread_local std::int64_t failed = 0;

}  // namespace

FailingAllocations::FailingAllocations(std::int64_t allowed) { left = allowed; }
FailingAllocations::~FailingAllocations() { left = -1; }

std::int64_t failed_allocations() { return failed; }

}  // namespace convship::testing

// Other forms of new end up in these two.
void* operator new(std::size_t size) {
  using namespace convship::testing;
  if (left >= 0 && left-- == 0) {
    ++failed;
    throw std::bad_alloc();
  }
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
