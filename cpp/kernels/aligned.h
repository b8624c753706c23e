// Uninitialised memory that begins at a cache line, as vectors of any
// instruction set like it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace convship::kernels {

constexpr std::align_val_t kCacheLine{64};

struct AlignedDelete {
  std::align_val_t alignment = kCacheLine;
  void operator()(void* memory) const { ::operator delete(memory, alignment); }
};

template <typename T>
using AlignedArray = std::unique_ptr<T[], AlignedDelete>;

template <typename T>
AlignedArray<T> make_aligned(int64_t count, std::align_val_t alignment = kCacheLine) {
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
  return {static_cast<T*>(::operator new(bytes, alignment)), AlignedDelete{alignment}};
}

// That of huge pages; kCacheLine where `bytes` do not fill one.
std::align_val_t page_alignment(std::size_t bytes);
// Asks the system for huge pages; it may have none.
void prefer_huge_pages(void* memory, std::size_t bytes);

// For packed weights, which each call reads from end to end and hardly any cache
// keeps: in huge pages, since CPUs fetch ahead no further than a page's end.
template <typename T>
AlignedArray<T> make_weights(int64_t count) {
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
  AlignedArray<T> array = make_aligned<T>(count, page_alignment(bytes));
  prefer_huge_pages(array.get(), bytes);
  return array;
}

}  // namespace convship::kernels
