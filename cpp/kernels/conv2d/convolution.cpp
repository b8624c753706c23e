#include "kernels/conv2d/convolution.h"

#include <array>
#include <atomic>
#include <cmath>
#include <mutex>

#include "kernels/conv2d/channels.h"
#include "kernels/conv2d/last_run.h"
#include "kernels/conv2d/plain_pack.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {
namespace {

template <typename T>
bool all_finite(const T* values, int64_t count) {
  // A sum of differences: without branches, and NaN where one is not finite.
  AccumulatorOf<T> sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto value = Accumulator<T>::widen(values[i]);
    sum += value - value;
  }
  return sum == 0;
}

constexpr int kFamilies = static_cast<int>(Family::winograd_2x2_5x5) + 1;

}  // namespace

// A slot per instruction set and loop. Filled under the lock, read without.
template <typename T>
class Convolution<T>::Packs {
 public:
  template <typename Make>
  const Pack<T>& get(int isa, Family family, const Make& make) {
    auto& slot = slots_[isa][static_cast<int>(family)];
    if (const Pack<T>* found = slot.load(std::memory_order_acquire)) return *found;
    const std::lock_guard lock(mutex_);
    auto& owner = owners_[isa][static_cast<int>(family)];
    if (!owner) {
      owner = make();
      slot.store(owner.get(), std::memory_order_release);
    }
    return *owner;
  }

 private:
  std::mutex mutex_;
  std::array<std::array<std::unique_ptr<Pack<T>>, kFamilies>, kMostInstructionSets> owners_;
  std::array<std::array<std::atomic<const Pack<T>*>, kFamilies>, kMostInstructionSets> slots_{};
};

template <typename T>
Convolution<T>::Convolution(const T* weight,
                            const T* bias,
                            const WeightShape& shape,
                            Accuracy accuracy)
    : weight_(weight),
      bias_(bias),
      shape_(shape),
      accuracy_(accuracy),
      finite_(all_finite(weight, shape.c_out * shape.channels * shape.kernel.h * shape.kernel.w)),
      packs_(std::make_unique<Packs>()) {}

template <typename T>
Convolution<T>::~Convolution() = default;

template <typename T>
Family Convolution<T>::family(const Geometry& geometry) const {
  const InstructionSet& isa = instruction_set(active_instruction_set());
  return choose(geometry, {.lanes = loops_of<AccumulatorOf<T>>(isa).lanes,
                           .may_round = accuracy_ == Accuracy::fast,
                           .may_expand = finite_});
}

template <typename T>
void Convolution<T>::run(const Geometry& geometry,
                         Activation activation,
                         const View<const T>& input,
                         const View<T>& output,
                         const View<const T>& residual,
                         const WindowIndex& index,
                         const Parallel& parallel) const {
  if (geometry.n == 0) return;
  const int number = active_instruction_set();
  const auto& loops = loops_of<AccumulatorOf<T>>(instruction_set(number));
  const Family family = choose(geometry, {.lanes = loops.lanes,
                                          .may_round = accuracy_ == Accuracy::fast && !index,
                                          .may_expand = finite_});
  const Pack<T>& pack = packs_->get(number, family, [&]() -> std::unique_ptr<Pack<T>> {
    if (family == Family::plain) return std::make_unique<PlainPack<T>>(shape_, weight_, bias_);
    return std::make_unique<ChannelsPack<T>>(loops, shape_, weight_, bias_);
  });
  note_run(instruction_set(number), family);
  pack.run({geometry, activation, input, output, residual, index}, parallel);
}

template class Convolution<float>;
template class Convolution<double>;
template class Convolution<BFloat16>;

}  // namespace convship::kernels::conv2d
