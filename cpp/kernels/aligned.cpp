#include "kernels/aligned.h"

#include <sys/mman.h>

namespace convship::kernels {
namespace {

// Of x86-64, and of 64-bit Arm with pages of 4 KB.
constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

std::align_val_t page_alignment(std::size_t bytes) {
  return bytes >= kHugePage ? std::align_val_t(kHugePage) : kCacheLine;
}

void prefer_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  // Whole ones alone: the rest of a last one would be memory that nobody uses.
  if (bytes >= kHugePage) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
}

}  // namespace convship::kernels
