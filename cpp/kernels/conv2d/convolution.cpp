#include "kernels/conv2d/convolution.h"

#include <array>
#include <atomic>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <type_traits>

#include "kernels/conv2d/channels.h"
#include "kernels/conv2d/columns.h"
#include "kernels/conv2d/depthwise.h"
#include "kernels/conv2d/groups.h"
#include "kernels/conv2d/last_run.h"
#include "kernels/conv2d/per_tap.h"
#include "kernels/conv2d/plain_pack.h"
#include "kernels/conv2d/sampling.h"
#include "kernels/conv2d/tiles.h"
#include "kernels/conv2d/winograd.h"
#include "kernels/conv2d/words.h"
#include "kernels/instruction_set.h"

namespace convship::kernels::conv2d {
namespace {

// Whether no exponent has all bits set; without branches, so that it takes
// vectors.
template <typename T>
bool all_finite(const T* values, int64_t count) {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t,
                                  std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
  constexpr Bits kExponent = sizeof(T) == 8   ? static_cast<Bits>(0x7ff0'0000'0000'0000)
                             : sizeof(T) == 4 ? static_cast<Bits>(0x7f80'0000)
                                              : static_cast<Bits>(0x7f80);
  Bits found = 0;
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, values + i, sizeof bits);
    found |= static_cast<Bits>((bits & kExponent) == kExponent);
  }
  return found == 0;
}

// Double precision is asked for where rounding matters.
template <typename T>
constexpr bool kMayRound = !std::is_same_v<T, double>;

// What all values of a type are rounded to already.
template <typename T>
constexpr Rounding::Kind kKind =
    std::is_same_v<T, BFloat16> ? Rounding::Kind::bfloat16 : Rounding::Kind::none;

std::atomic<int64_t> packings_made{0};
std::atomic<int64_t> packings_kept{0};

}  // namespace

Packings packings() {
  return {packings_made.load(std::memory_order_relaxed),
          packings_kept.load(std::memory_order_relaxed)};
}

// A slot per instruction set and loop. Filled under the lock, read without.
template <typename T>
class Convolution<T>::Packs {
 public:
  ~Packs() { packings_kept.fetch_sub(made_, std::memory_order_relaxed); }

  template <typename Make>
  const Pack<T>& get(int isa, Family family, const Make& make) {
    auto& slot = slots_[isa][static_cast<int>(family)];
    if (const Pack<T>* found = slot.load(std::memory_order_acquire)) return *found;
    const std::lock_guard lock(mutex_);
    auto& owner = owners_[isa][static_cast<int>(family)];
    if (!owner) {
      owner = make();
      ++made_;
      packings_made.fetch_add(1, std::memory_order_relaxed);
      packings_kept.fetch_add(1, std::memory_order_relaxed);
      slot.store(owner.get(), std::memory_order_release);
    }
    return *owner;
  }

 private:
  std::mutex mutex_;
  int64_t made_ = 0;
  std::array<std::array<std::unique_ptr<Pack<T>>, kFamilies>, kMostInstructionSets> owners_;
  std::array<std::array<std::atomic<const Pack<T>*>, kFamilies>, kMostInstructionSets> slots_{};
};

template <typename T>
Convolution<T>::Convolution(const T* weight,
                            const T* bias,
                            const WeightShape& shape,
                            Accuracy accuracy,
                            const Rounding& rounding)
    : weight_(weight),
      bias_(bias),
      shape_(shape),
      accuracy_(accuracy),
      rounding_(rounding),
      finite_(all_finite(weight, shape.c_out * shape.channels * shape.kernel.h * shape.kernel.w)),
      packs_(std::make_unique<Packs>()) {
  if (rounding && !std::is_same_v<T, float>) throw std::logic_error("only float32 is rounded");
}

template <typename T>
Convolution<T>::~Convolution() = default;

template <typename T>
bool Convolution<T>::may_round() const {
  return kMayRound<T> && accuracy_ == Accuracy::fast;
}

template <typename T>
void Convolution<T>::offer_words(const InstructionSet& isa,
                                 const Geometry& geometry,
                                 int64_t block,
                                 Choice& choice) const {
  const Rounding::Kind kind = kKind<T> != Rounding::Kind::none ? kKind<T> : rounding_.kind;
  if (kind == Rounding::Kind::none || (rounding_ && !finite_)) return;
  // Of bfloat16 tensors the layout must not decide.
  if (!WordsPack::serves(geometry, rounding_ ? block : kChannelBlock, kind)) return;
  const bool integers = kind == Rounding::Kind::int8;
  if (integers ? int8_tiles(isa) : bfloat16_tiles(isa)) choice.tiles = kind;
  if (rounding_ && (integers ? int8_loops(isa) : bfloat16_loops(isa))) choice.words = kind;
}

template <typename T>
Choice Convolution<T>::choice(const InstructionSet& isa) const {
  return {
      .lanes = loops_of<AccumulatorOf<T>>(isa).lanes,
      .may_round = may_round(),
      .may_expand = finite_,
      .depthwise = std::is_same_v<T, AccumulatorOf<T>>,
      .per_tap = std::is_same_v<T, AccumulatorOf<T>>,
  };
}

template <typename T>
Family Convolution<T>::family(const Geometry& whole,
                              bool input_blocked,
                              bool output_blocked) const {
  const Geometry geometry = sample(whole).geometry;
  const InstructionSet& isa = instruction_set(active_instruction_set());
  Choice choice = this->choice(isa);
  choice.channels_adjoin = output_blocked;
  choice.groups = std::is_same_v<T, float> && input_blocked && output_blocked;
  offer_words(isa, geometry, input_blocked ? kChannelBlock : 1, choice);
  return choose(geometry, choice);
}

template <typename T>
void Convolution<T>::run(const Geometry& whole,
                         Activation activation,
                         const View<const T>& image,
                         const View<T>& output,
                         const View<const T>& residual,
                         const WindowIndex& index,
                         const Parallel& parallel) const {
  if (whole.n == 0) return;
  const Sample used = sample(whole);
  const Geometry& geometry = used.geometry;
  const View<const T> input = sampled(image, used);
  if constexpr (std::is_same_v<T, float>) {
    const auto served = [&] {
      Choice offered{};
      offer_words(instruction_set(active_instruction_set()), geometry, input.block, offered);
      return offered.words == rounding_.kind || offered.tiles == rounding_.kind;
    };
    if (rounding_.kind == Rounding::Kind::int8 && (index || !served())) {
      const auto rounded = rounded_planes(input, geometry, rounding_, parallel);
      const View<const float> planes =
          nchw<const float>(rounded.get(), geometry.c_in, geometry.image);
      return run_call({geometry, activation, planes, output, residual, index}, parallel);
    }
  }
  run_call({geometry, activation, input, output, residual, index}, parallel);
}

template <typename T>
void Convolution<T>::run_call(const Call<T>& call, const Parallel& parallel) const {
  const int number = active_instruction_set();
  const InstructionSet& isa = instruction_set(number);
  Choice choice = this->choice(isa);
  choice.channels_adjoin = call.output.channels_adjoin();
  if constexpr (std::is_same_v<T, float>) choice.groups = GroupsPack::serves(call, isa);
  if (call.index) choice.per_tap = false;
  if (!rounding_ || !call.index) offer_words(isa, call.geometry, call.input.block, choice);
  const auto pack = [&](bool may_round) -> const Pack<T>& {
    choice.may_round = may_round;
    const Family family = choose(call.geometry, choice);
    note_run(isa, family);
    return packs_->get(number, family, [&] { return make_pack(isa, family); });
  };
  for (const int64_t n : pack(may_round() && !call.index).run(call, parallel)) {
    // Alone, by direct sums.
    Geometry one = call.geometry;
    one.n = 1;
    View<const T> x = call.input, r = call.residual;
    View<T> y = call.output;
    x.data += n * x.n_step;
    y.data += n * y.n_step;
    if (r.data) r.data += n * r.n_step;
    pack(false).run({one, call.activation, x, y, r, call.index}, parallel);
  }
}

template <typename T>
std::unique_ptr<Pack<T>> Convolution<T>::make_pack(const InstructionSet& isa, Family family) const {
  if (family == Family::plain) return std::make_unique<PlainPack<T>>(shape_, weight_, bias_);
  const auto& loops = loops_of<AccumulatorOf<T>>(isa);
  if (family == Family::channels) {
    return std::make_unique<ChannelsPack<T>>(loops, shape_, weight_, bias_);
  }
  if (family == Family::columns) {
    return std::make_unique<ColumnsPack<T>>(loops, shape_, weight_, bias_);
  }
  if constexpr (std::is_same_v<T, AccumulatorOf<T>>) {
    if (family == Family::per_tap) {
      return std::make_unique<PerTapPack<T>>(loops, shape_, weight_, bias_);
    }
    if (family == Family::depthwise) {
      return std::make_unique<DepthwisePack<T>>(loops, shape_, weight_, bias_);
    }
  }
  if constexpr (std::is_same_v<AccumulatorOf<T>, float>) {
    if (family == Family::tiles_bfloat16 || family == Family::tiles_int8) {
      const TileLoops* tiles = family == Family::tiles_int8 ? int8_tiles(isa) : bfloat16_tiles(isa);
      return std::make_unique<TilesPack<T>>(*tiles, loops, rounding_, shape_, weight_, bias_);
    }
  }
  if constexpr (std::is_same_v<T, float>) {
    if (family == Family::groups) {
      return std::make_unique<GroupsPack>(isa, shape_, weight_, bias_);
    }
    if (family == Family::words_bfloat16 || family == Family::words_int8) {
      const WordLoops* loops = family == Family::words_int8 ? int8_loops(isa) : bfloat16_loops(isa);
      return std::make_unique<WordsPack>(*loops, rounding_, shape_, weight_, bias_);
    }
  }
  if constexpr (std::is_same_v<AccumulatorOf<T>, float>) {
    return std::make_unique<WinogradPack<T>>(isa, family, shape_, weight_, bias_);
  }
  throw std::logic_error("no such loop");  // choose() offers Winograd for float only
}

template class Convolution<float>;
template class Convolution<double>;
template class Convolution<BFloat16>;

}  // namespace convship::kernels::conv2d
