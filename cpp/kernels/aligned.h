// Uninitialised memory that begins at a cache line, as vectors of any
// instruction set like it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace convship::kernels {

constexpr std::size_t kCacheLine = 64;

struct AlignedDelete {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t(kCacheLine)); }
};

template <typename T>
using AlignedArray = std::unique_ptr<T[], AlignedDelete>;

template <typename T>
AlignedArray<T> make_aligned(int64_t count) {
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
  return AlignedArray<T>(static_cast<T*>(::operator new(bytes, std::align_val_t(kCacheLine))));
}

}  // namespace convship::kernels
