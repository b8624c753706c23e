// Memory of a loop for the time of a call. Each thread keeps what it gave back,
// for its next call: an allocator may return large blocks to the system, and fresh
// pages cost a small layer more than its sums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace convship::kernels {

struct ScratchDelete {
  std::size_t bytes = 0;
  void operator()(void* memory) const noexcept;
};

// Uninitialised; begins at a cache line.
void* take_scratch(std::size_t& bytes);

// To be destroyed by the thread that made it.
template <typename T>
using Scratch = std::unique_ptr<T[], ScratchDelete>;

template <typename T>
Scratch<T> make_scratch(int64_t count) {
  std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
  T* const memory = static_cast<T*>(take_scratch(bytes));
  return Scratch<T>(memory, ScratchDelete{bytes});
}

}  // namespace convship::kernels
