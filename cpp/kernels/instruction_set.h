// The loops of each instruction set, and which one is active.
#pragma once

#include "kernels/conv2d/tasks.h"
#include "kernels/layers/tasks.h"

namespace convship::kernels {

// Multiply-adds in a round of fma_loop: two units of latency 5 keep 10 in
// flight, and with two factors they must fit into 16 registers.
constexpr int kFmaRound = 12;

// Loops over values of type A.
template <typename A>
struct Loops {
  int lanes;  // values in a vector
  void (*interleave)(const conv2d::Interleave<A>&, A* to);
  // to[j * to_step + i] = from[i * from_step + j]
  void (*transpose)(
      const A* from, int64_t from_step, int64_t rows, int64_t columns, A* to, int64_t to_step);
  void (*channels)(const conv2d::ChannelsTask<A>&);
  int channels_vectors;  // of output channels in a ChannelsTask, at most
  // One vector of channels, of which each sums its own channel of the input alone.
  void (*depthwise)(const conv2d::ChannelsTask<A>&);
  int columns_channels;  // output channels of a ColumnsTask, at most
  void (*columns_split)(const conv2d::ColumnsSplit<A>&);
  void (*columns)(const conv2d::ColumnsTask<A>&);
  // weight += grad * image, and image += grad * weight.
  void (*winners_to_weight)(const conv2d::WinnersTask<A>&);
  void (*winners_to_image)(const conv2d::WinnersTask<A>&);
  void (*narrow)(const conv2d::Narrow<A>&);
  A (*fma_loop)(int64_t rounds);  // of kFmaRound multiply-adds per lane
};

// One variant of Winograd's algorithm.
template <typename A>
struct WinogradLoops {
  void (*weights)(const conv2d::WinogradWeights<A>&);
  // Returns the largest magnitude that it saw, infinity for NaN.
  A (*input)(const conv2d::WinogradInput<A>&);
  void (*product)(const conv2d::WinogradProduct<A>&);
  void (*output)(const conv2d::WinogradOutput<A>&);
};

// Products of words of `channels_in_word` channels; see WordsCopy.
struct WordLoops {
  int channels_in_word;
  void (*copy)(const conv2d::WordsCopy&, float* to);
  void (*channels)(const conv2d::ChannelsTask<float>&);
};

// Products of such words in a matrix unit, tiles of pixels by output channels at a time.
struct TileLoops {
  int channels_in_word;
  void (*copy)(const conv2d::TilesCopy<float>&, float* to);
  // Of numbers that are bfloat16 already; null where words are of others.
  void (*copy_bfloat16)(const conv2d::TilesCopy<BFloat16>&, float* to);
  void (*channels)(const conv2d::ChannelsTask<float>&);
};

struct InstructionSet {
  const char* name;
  Loops<float> single;
  Loops<double> twofold;
  LayerLoops layers;  // null pointers where there are no loops over vectors
  WinogradLoops<float> winograd_2x2_3x3;
  WinogradLoops<float> winograd_4x4_3x3;
  WinogradLoops<float> winograd_2x2_5x5;
};

template <typename A>
const Loops<A>& loops_of(const InstructionSet& isa);
template <>
inline const Loops<float>& loops_of(const InstructionSet& isa) {
  return isa.single;
}
template <>
inline const Loops<double>& loops_of(const InstructionSet& isa) {
  return isa.twofold;
}

// What this build has, best first; the last is "baseline", which every CPU of
// the architecture has and which has no loops over vectors.
constexpr int kMostInstructionSets = 4;

// Number of the one that calls use from now on, and what is behind a number.
// Throws std::invalid_argument when CONVSHIP_ISA names one that is not there.
int active_instruction_set();
const InstructionSet& instruction_set(int number);

// Loops that round, where the active instruction set and the CPU have them;
// else null.
const WordLoops* bfloat16_loops(const InstructionSet& isa);
const WordLoops* int8_loops(const InstructionSet& isa);
const TileLoops* bfloat16_tiles(const InstructionSet& isa);
const TileLoops* int8_tiles(const InstructionSet& isa);

// One per file of conv2d/isa.
extern const WordLoops kAvx512Bfloat16;
extern const WordLoops kAvx512Int8;
extern const TileLoops kAmxBfloat16;
extern const TileLoops kAmxInt8;
extern const InstructionSet kAvx2;
extern const InstructionSet kAvx512;
extern const InstructionSet kAmx;
extern const InstructionSet kNeon;

}  // namespace convship::kernels
