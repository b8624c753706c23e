#include "kernels/conv2d/channels.h"

#include <algorithm>
#include <type_traits>

#include "kernels/conv2d/channels_input.h"
#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/depthwise_input.h"
#include "kernels/conv2d/destination.h"
#include "kernels/conv2d/tap_runs.h"
#include "kernels/conv2d/taps.h"
#include "kernels/conv2d/tiles_input.h"
#include "kernels/conv2d/words_input.h"
#include "kernels/scratch.h"

namespace convship::kernels::conv2d {
namespace {

// All, as long as the weights that a row of a block needs leave most of the
// second-level cache to the input; else as many as the first-level cache holds
// beside the input.
int64_t taps_at_once(int64_t taps, int64_t needed, int64_t tap_bytes) {
  constexpr int64_t kFirstLevelBytes = 16 << 10;
  if (needed * tap_bytes <= second_level_cache() / 4) return taps;
  return kFirstLevelBytes / tap_bytes;
}

// See Source::grouped. The channels of a kernel column are whole groups, so that runs
// of taps are, too.
bool are_grouped(const std::vector<int32_t>& offsets, int64_t channels) {
  if (channels % kTapGroup != 0 || offsets.size() % kTapGroup != 0) return false;
  for (std::size_t t = 0; t < offsets.size(); t += kTapGroup) {
    for (int i = 1; i < kTapGroup; ++i) {
      if (offsets[t + i] != offsets[t] + i) return false;
    }
  }
  return true;
}

// Bytes of one row of input that is read in place, if bands of rows should stay in the
// second-level cache while all blocks of output channels read them; else 0. Each band then
// reads all weights again.
template <typename A>
int64_t kept_row_bytes(const Geometry& g, const ChannelBlocks& blocks) {
  const int64_t channels = g.c_in / g.groups, value = sizeof(A);
  const int64_t row = channels * g.image.w * value, image = row * g.image.h;
  const int64_t weights = blocks.padded() * channels * g.kernel.h * g.kernel.w * value;
  return 2 * ceil_div(image, kBandBytes) * weights < (blocks.count() - 1) * image ? row : 0;
}

// Input that is copied has zeros around it, or words whose levels stand for 0,
// which count in sums of integers.
template <typename Input>
TapRuns tap_runs(const Geometry& g, int64_t taps) {
  return is_padded(g) && Input::kPadsWithZeros ? TapRuns(g, g.c_in / g.groups) : TapRuns(taps);
}

// Whether loops over tiles read this input: they take no steps.
template <typename Input>
constexpr bool kHasRuns = requires(const Input& input) { input.run_words(); };

}  // namespace

ChannelBlocks::ChannelBlocks(const WeightShape& shape, int lanes, bool joins_odd)
    : lanes_(lanes),
      out_(shape.c_out / shape.groups),
      vectors_(ceil_div(out_, lanes_)),
      count_(joins_odd ? std::max<int64_t>(1, vectors_ / 2) : ceil_div(vectors_, 2)) {}

ChannelBlocks::Block ChannelBlocks::operator[](int64_t number) const {
  const int64_t first = 2 * number * lanes_;
  const int64_t mine = number + 1 == count_ ? vectors_ - 2 * number : 2;  // 1 to 3
  return {first, std::min(out_ - first, mine * lanes_), static_cast<int>(mine)};
}

template <typename T>
ChannelsPack<T>::ChannelsPack(const Loops<A>& loops,
                              const WeightShape& shape,
                              const T* weight,
                              const T* bias)
    : loops_(loops), packed_(ChannelBlocks(shape, loops.lanes)) {
  const ChannelBlocks& blocks = packed_.blocks;
  const int64_t taps = shape.channels * shape.kernel.h * shape.kernel.w;
  const int64_t out = blocks.out(), padded = blocks.padded();
  packed_.loop = loops.channels;
  packed_.pairs_blocks = loops.channels_vectors == 4;
  packed_.narrow = loops.narrow;
  packed_.weight = make_weights<A>(shape.groups * padded * taps);
  packed_.bias = make_aligned<A>(shape.groups * padded);
  for (int64_t group = 0; group < shape.groups; ++group) {
    for (int64_t i = 0; i < blocks.count(); ++i) {
      const ChannelBlocks::Block b = blocks[i];
      pack_taps(shape, weight + (group * out + b.first) * taps, b.exist, b.vectors * loops.lanes,
                packed_.weight.get() + (group * padded + b.first) * taps);
    }
    for (int64_t o = 0; o < padded; ++o) {
      const A value = bias && o < out ? Accumulator<T>::widen(bias[group * out + o]) : A(0);
      packed_.bias[group * padded + o] = value + A(0);  // never -0.0
    }
  }
}

template <typename T, typename Input>
void run_channels(const PackedChannels<AccumulatorOf<T>>& packed,
                  Input& input,
                  const Call<T>& call,
                  const Parallel& parallel) {
  using A = AccumulatorOf<T>;
  const Geometry& g = call.geometry;
  const ChannelBlocks& blocks = packed.blocks;
  const int64_t out = blocks.out(), padded = blocks.padded(), lanes = blocks.lanes();
  const int64_t most = kMaxVectors * lanes;
  const int64_t row_bytes =
      input.row_bytes() > 0 ? input.row_bytes() : kept_row_bytes<A>(g, blocks);
  const Cut c =
      cut(g, blocks.count(), ceil_div(padded, blocks.count()), row_bytes, parallel.width());
  input.set_rows(rows_under(conv_rows_of(c.band_rows, g), g));
  const View<const void>& steps = input.steps();
  std::vector<int32_t> offsets = input.offsets();
  const auto taps = static_cast<int64_t>(offsets.size());
  const bool grouped = are_grouped(offsets, g.c_in / g.groups);
  const bool once = grouped && g.kernel.w <= g.stride.w;
  if (once) offsets.resize(offsets.size() + kTapChunk, offsets.back());
  const Destination<T> destination(call, lanes, packed.narrow);

  ChannelsTask<A> base{};
  base.source = {nullptr,
                 0,
                 g.stride.h * steps.h_step,
                 g.stride.w * steps.w_step,
                 offsets.data(),
                 taps,
                 grouped,
                 once ? kTapChunk : 0,
                 {}};
  base.pool = pool_of(g);
  base.pool.end = c.band_rows;
  TapRuns runs = tap_runs<Input>(g, taps);
  const auto steps_of = [&](int64_t vectors) {
    return taps_at_once(taps, runs.most(), vectors * lanes * static_cast<int64_t>(sizeof(A)));
  };
  // Narrow tiles begin and end too often where sums take steps; strided layers are slower
  // in pairs, too (measured).
  const bool pairs = packed.pairs_blocks && !call.index && !is_pooled(g) && g.stride.w == 1 &&
                     destination.channels_adjoin() && steps_of(4) == taps;
  base.taps_at_once = steps_of(2);
  if constexpr (kHasRuns<Input>) {
    base.run_words = input.run_words();
    base.taps_at_once = taps;
  }
  runs.cut(base.taps_at_once);
  base.source.row_taps = runs.rows();
  const bool in_steps = base.source.row_taps.steps > 1;
  // Inside of a network, what no cache keeps from call to call.
  const auto weights = static_cast<int64_t>(sizeof(A)) * g.groups * padded * taps;
  base.prefetch = in_steps || (weights > second_level_cache() && runs.most() == taps);
  const int64_t scratch = ceil_div(kHasRuns<Input> ? tiles_scratch(base.pool, lanes)
                                                   : channels_scratch(base.pool, in_steps, lanes),
                                   16) *
                          16;
  const int64_t buffer = ceil_div(destination.buffer_size(most, c.band_rows), 16) * 16;
  const int64_t ahead = kHasRuns<Input> ? tile_rows(base.pool, lanes) : 0;
  const int64_t ring = ceil_div(pooling_ring(base.pool, most, ahead), 16) * 16;
  const int64_t rings = c.keeps_rings ? blocks.count() * ring : ring;

  parallel.run(g.n * g.groups * c.bands * c.parts, 1, [&](int64_t begin, int64_t end) {
    const auto memory = make_scratch<A>(scratch + buffer + rings + input.size());
    A* const rows = memory.get() + scratch + buffer + rings;
    const A* x = nullptr;
    int64_t band = -1;
    for (int64_t item = begin; item < end; ++item) {
      const Item i = c.item(item, g);
      ChannelsTask<A> task = base;
      task.scratch = memory.get();
      const Range pooled = c.rows(i.band, g);
      task.pool.begin = pooled.begin;
      task.pool.end = pooled.end;
      task.pool.done = item > begin ? c.conv_rows_before(i.band, g) : 0;
      task.source.first_row = std::max(first_conv_row(task.pool.begin, g), task.pool.done);
      if (band != item / c.parts) {
        band = item / c.parts;
        x = input.band(i.n, i.group, task.source.first_row * g.stride.h, rows);
      }
      task.source.x = x;
      const int64_t last = std::min(blocks.count(), (i.part + 1) * c.part_blocks);
      for (int64_t number = i.part * c.part_blocks; number < last; ++number) {
        ChannelBlocks::Block b = blocks[number];
        const int64_t place = i.group * padded + b.first;
        task.block_step = taps * b.vectors * lanes;
        task.ring = memory.get() + scratch + buffer + (c.keeps_rings ? number * ring : 0);
        if (pairs && number + 1 < last && b.vectors == 2 && blocks[number + 1].vectors == 2) {
          const ChannelBlocks::Block second = blocks[++number];
          b.exist += second.exist;
          b.vectors += second.vectors;
        }
        task.vectors = b.vectors;
        task.weight = packed.weight.get() + place * taps;
        task.bias = packed.bias.get() + place;
        task.scale = packed.scale ? packed.scale.get() + place : nullptr;
        const int64_t o = i.group * out + b.first;
        destination.run(task, i.n, o, std::min(b.exist, g.c_out - o), memory.get() + scratch,
                        packed.loop);
      }
    }
  });
}

template void run_channels(const PackedChannels<float>&,
                           WordsInput&,
                           const Call<float>&,
                           const Parallel&);
template void run_channels(const PackedChannels<float>&,
                           TilesInput<float>&,
                           const Call<float>&,
                           const Parallel&);
template void run_channels(const PackedChannels<float>&,
                           TilesInput<BFloat16>&,
                           const Call<BFloat16>&,
                           const Parallel&);
template void run_channels(const PackedChannels<float>&,
                           DepthwiseInput<float>&,
                           const Call<float>&,
                           const Parallel&);
template void run_channels(const PackedChannels<double>&,
                           DepthwiseInput<double>&,
                           const Call<double>&,
                           const Parallel&);

template <typename T>
std::vector<int64_t> ChannelsPack<T>::run(const Call<T>& call, const Parallel& parallel) const {
  ChannelsInput<T> input(loops_, call.geometry, call.input);
  run_channels<T>(packed_, input, call, parallel);
  return {};
}

template class ChannelsPack<float>;
template class ChannelsPack<double>;
template class ChannelsPack<BFloat16>;

}  // namespace convship::kernels::conv2d
