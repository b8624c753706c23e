// The steps of a plan: one for each layer, and the ways in and out.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/instruction_set.h"
#include "kernels/parallel.h"
#include "plan/places.h"

namespace convship::plan {

// What one call runs on.
struct Frame {
  std::span<const kernels::conv2d::View<const float>> inputs;
  std::span<float* const> outputs;
  float* memory;
  float* micro_batch;
  const kernels::Parallel& parallel;
  const kernels::InstructionSet& isa;
  int64_t first_image = 0;  // of those that lie for all images: in memory, inputs, outputs
};

struct Step {
  std::string name;
  std::function<void(const Frame&)> run;
};

// A value and where it lies.
struct Operand {
  Place place;
  Size size;

  kernels::conv2d::View<float> view(const Frame& frame) const;
  kernels::conv2d::View<const float> const_view(const Frame& frame) const;
  // Where the value is in memory.
  float* data(const Frame& frame) const;
  // Of a channel, the first pixel; 16 floats from one pixel to the next.
  float* channel(const Frame& frame, int64_t n, int64_t c) const;
  // Of a block of 16 channels, the first pixel.
  float* block(const Frame& frame, int64_t n, int64_t number) const;
  // Of the first block.
  float* pixel(const Frame& frame, int64_t n, int64_t number) const {
    return block(frame, n, 0) + number * kernels::conv2d::kChannelBlock;
  }
  int64_t blocks() const;
  // From one block of 16 channels to the next.
  int64_t block_step() const;
};

std::string describe(const Size& size);
// By channel, whole blocks of them.
std::vector<float> padded(const std::vector<float>& values);
// Items that are worth waking a thread for, of so many operations each.
int64_t grain(int64_t operations);

Step convolve_step(const Convolve& layer, const Operand& x, const Operand* residual, Operand y);
Step transposed_step(const TransposedConvolve& layer, const Operand& x, const Operand& y);
Step linear_step(const Linear& layer, const Operand& x, const Operand& y);
Step max_pool_step(const MaxPool& layer, const Operand& x, const Operand& y);
Step average_pool_step(const AveragePool& layer, const Operand& x, const Operand& y);
Step adaptive_pool_step(const AdaptivePool& layer, const Operand& x, const Operand& y);
Step across_step(const AcrossChannels& layer, const Operand& x, const Operand& y);
Step activate_step(const Activate& layer, const Operand& x, const Operand& y);
Step round_step(const Round& layer, const Operand& x, const Operand& y);
Step add_step(const Add& layer, const Operand& a, const Operand& b, const Operand& y);
Step combine_step(const Combine& layer, const Operand& a, const Operand& b, const Operand& y);
Step combine_numbers_step(const CombineNumbers& layer, const Operand& x, const Operand& y);
Step affine_step(const Affine& layer, const Operand& x, const Operand* residual, const Operand& y);
Step normalize_step(const Normalize& layer, const Operand& x, const Operand& y);
Step slope_step(const Slope& layer, const Operand& x, const Operand& y);
Step group_norm_step(const GroupNorm& layer,
                     const Operand& x,
                     const Operand* residual,
                     const Operand& y);
Step upsample_step(const Upsample& layer, const Operand& x, const Operand& y);
// top, left: of the image in the result.
Step pad_step(const Pad& layer, Pair corner, const Operand& x, const Operand& y);
Step pixel_shuffle_step(const PixelShuffle& layer, const Operand& x, const Operand& y);
Step pixel_unshuffle_step(const PixelUnshuffle& layer, const Operand& x, const Operand& y);
Step softmax_step(const Softmax& layer, const Operand& x, const Operand& y);
Step attend_step(
    const Attend& layer, const Operand& q, const Operand& k, const Operand& v, const Operand& y);
Step add_pixels_step(const AddPixels& layer, const Operand& x, const Operand& y);
Step combine_image_step(const CombineImage& layer, const Operand& x, const Operand& y);
Step flatten_step(const Operand& x, const Operand& y);
Step unflatten_step(const Operand& x, const Operand& y);
// Channels of x to those of y from `channel` on.
Step place_channels_step(const Operand& x, const Operand& y, int64_t channel);
Step concatenate_pixels_step(const ConcatenatePixels& layer,
                             const std::vector<Operand>& from,
                             const Operand& y);
Step exchange_step(const ExchangeChannels& layer, const Operand& x, const Operand& y);
Step select_step(const Select& layer, const std::vector<Operand>& from, const Operand& y);
Step import_step(const Operand& from, const Operand& to);
Step export_step(const Operand& from, const Operand& to);

}  // namespace convship::plan
