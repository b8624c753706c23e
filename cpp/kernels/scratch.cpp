#include "kernels/scratch.h"

#include <algorithm>
#include <array>
#include <new>

#include "kernels/aligned.h"

// AddressSanitizer watches the end of each block, so it gets a new one each time.
#if defined(__SANITIZE_ADDRESS__)
#define CONVSHIP_MOST_KEPT 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CONVSHIP_MOST_KEPT 0
#endif
#endif
#ifndef CONVSHIP_MOST_KEPT
#define CONVSHIP_MOST_KEPT 8
#endif

namespace convship::kernels {
namespace {

struct Block {
  void* memory;
  std::size_t bytes;
};

void release(const Block& block) { AlignedDelete()(block.memory); }

// One thread's blocks that are not in use, the smallest first. There come to be
// as many as a loop holds at a time, each as large as its largest use.
class Kept {
 public:
  Kept() = default;
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;
  ~Kept() { std::for_each(begin(), end(), release); }

  Block take(std::size_t bytes) {
    Block* found = std::find_if(begin(), end(), [&](const Block& b) { return b.bytes >= bytes; });
    if (found != end()) return remove(found);
    if (count_ > 0) release(remove(end() - 1));  // outgrown
    return {make_aligned<std::byte>(static_cast<int64_t>(bytes)).release(), bytes};
  }

  void give_back(const Block& block) {
    if (count_ == kMost || block.bytes > kLargest) return release(block);
    Block* place =
        std::find_if(begin(), end(), [&](const Block& b) { return b.bytes >= block.bytes; });
    std::move_backward(place, end(), end() + 1);
    *place = block;
    ++count_;
  }

 private:
  static constexpr std::size_t kMost = CONVSHIP_MOST_KEPT;
  static constexpr std::size_t kLargest = 16 << 20;

  Block* begin() { return blocks_.data(); }
  Block* end() { return blocks_.data() + count_; }

  Block remove(Block* block) {
    const Block removed = *block;
    std::move(block + 1, end(), block);
    --count_;
    return removed;
  }

  std::array<Block, kMost> blocks_{};
  std::size_t count_ = 0;
};

thread_local Kept kept;

}  // namespace

void* take_scratch(std::size_t& bytes) {
  const Block block = kept.take(bytes);
  bytes = block.bytes;
  return block.memory;
}

void ScratchDelete::operator()(void* memory) const noexcept { kept.give_back({memory, bytes}); }

}  // namespace convship::kernels
