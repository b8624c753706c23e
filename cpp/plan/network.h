// A network as a list of layers over packed weights, for any size of input.
//
// Values are images [N, C, H, W], or matrices [N, F], which are images of one
// pixel. Float32. Weights are referred to and must outlive the network.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "kernels/conv2d/convolution.h"
#include "kernels/layers/rounded_matrix.h"
#include "kernels/layers/tasks.h"

namespace convship::plan {

using kernels::conv2d::Activation;
using kernels::conv2d::Pair;
using kernels::conv2d::Rounding;

struct Size {
  int64_t n = 0;
  int64_t c = 0;
  Pair image{1, 1};
  bool matrix = false;

  int64_t pixels() const { return image.h * image.w; }
};

bool operator==(const Size& a, const Size& b);

// A number of a network: constant, or what follows from the sizes of its values.
struct Measure {
  int64_t constant = 0;
  std::function<int64_t(const std::vector<Size>&)> rule = nullptr;

  int64_t operator()(const std::vector<Size>& sizes) const { return rule ? rule(sizes) : constant; }
  bool is(int64_t number) const { return !rule && constant == number; }
};

// Sliding windows; as torch's pooling layers.
struct Windows {
  Pair size{1, 1};
  Pair stride{1, 1};
  Pair padding{0, 0};
  bool ceil_mode = false;
};

// activation(conv(x) + residual), or max pooling of activation(conv(x)).
// Inputs: x, and the residual where there is one.
struct Convolve {
  std::shared_ptr<const kernels::conv2d::Convolution<float>> weights;
  const float* weight;  // [c_out, c_in / groups, kernel], as `weights` was made from
  const float* bias;    // or null
  kernels::conv2d::WeightShape shape;
  Pair stride, padding, dilation;
  Pair more_padding{0, 0};  // below and right of the image, beyond `padding`
  Activation activation = Activation::none;
  bool pooled = false;
  Windows pool;
};

// activation(torch's conv_transpose2d(x)). Rows and columns of the result whose place
// modulo the stride is the same see the same taps: they are a convolution of stride 1.
struct TransposedConvolve {
  struct Phase {
    Pair at;  // of the kernel: its first row and column that count here
    kernels::conv2d::WeightShape shape;
    std::shared_ptr<const kernels::conv2d::Convolution<float>> weights;
  };
  std::vector<Phase> phases;  // stride.h * stride.w of them
  int64_t c_in, c_out;
  Pair kernel, stride, padding, output_padding;
  Activation activation = Activation::none;
};

// activation(weight x + bias) of matrices; weight [out, in].
struct Linear {
  const float* weight;
  const float* bias;  // or null
  int64_t in, out;
  Activation activation = Activation::none;
  // In place of weight, where the input is rounded.
  std::shared_ptr<const kernels::RoundedMatrix> rounded = nullptr;
};

struct MaxPool {
  Windows windows;
};

struct AveragePool {
  Windows windows;
  bool count_padding = true;
};

// What becomes of several values.
enum class Reduction { mean, maximum, sum };

// Of windows of nearly equal size, as those of torch's adaptive_avg_pool2d and
// adaptive_max_pool2d.
struct AdaptivePool {
  Measure height, width;
  Reduction reduction = Reduction::mean;
};

// Of each pixel's channels; [N, 1, H, W].
struct AcrossChannels {
  Reduction reduction;
};

struct Activate {
  Activation activation;
};

// The nearest numbers of a narrower kind, as float32. Layers of weights behind it
// multiply such numbers (their `rounding`, `rounded`) and need no such step.
struct Round {
  Rounding rounding;
};

// activation(a + b), of equal sizes, or of operands with one channel, row or column, which
// serves all of the other's.
struct Add {
  Activation activation = Activation::none;
  bool into_first = false;  // the result has the first operand's size
};

// activation(a - b), or what else `how` makes of a and b; operands as Add's.
struct Combine {
  kernels::CombineTask::How how;
  bool into_first = false;
  Activation activation = Activation::none;
};

// activation(x op numbers), one for each channel, or numbers op x where they are `first`.
struct CombineNumbers {
  kernels::CombineTask::How how;
  std::shared_ptr<const std::vector<float>> numbers;
  bool first = false;
  Activation activation = Activation::none;
};

// activation(x * scale + shift + residual), by channel: batch norm that is not folded.
// Inputs: x, and the residual where there is one.
struct Affine {
  std::shared_ptr<const std::vector<float>> scale, shift;
  Activation activation = Activation::none;
};

// Each pixel by itself: (x - mean) / sqrt(variance + epsilon) * scale + shift, over its
// channels; torch's layer_norm of [N, H, W, C].
struct Normalize {
  std::shared_ptr<const std::vector<float>> scale, shift;
  float epsilon;
};

// x, below zero times slope, by channel: torch's prelu.
struct Slope {
  std::shared_ptr<const std::vector<float>> slope;
};

// activation((x - mean) / sqrt(variance + epsilon) * scale + shift + residual), with the mean
// and (biased) variance of a group's channels and all pixels of an image: torch's group_norm,
// and its instance_norm, of which every channel is a group.
// Inputs: x, and the residual where there is one.
struct GroupNorm {
  int64_t groups;
  std::shared_ptr<const std::vector<float>> scale, shift;
  float epsilon;
  Activation activation = Activation::none;
};

// As torch's upsample_nearest2d and upsample_bilinear2d. scale: where the caller gave it,
// coordinates follow from it and not from the sizes.
struct Upsample {
  enum class Way { nearest, bilinear, bilinear_aligned } way;
  Measure height, width;
  std::optional<double> scale_h, scale_w;
};

// Rows and columns around the image; negative numbers of them are cut off.
struct Pad {
  enum class Kind { constant, reflect, replicate, circular } kind;
  Measure top, bottom, left, right;
  float value = 0;
};

// [N, C * factor^2, H, W] to [N, C, H * factor, W * factor].
struct PixelShuffle {
  int64_t factor;
};

// [N, C, H * factor, W * factor] to [N, C * factor^2, H, W].
struct PixelUnshuffle {
  int64_t factor;
};

// exp(x) / sum of exp(x) over the channels of each pixel, or its logarithm.
struct Softmax {
  bool logarithm = false;
};

// Channels of all inputs one after the other.
struct Concatenate {};

// Rows of all inputs one after the other, or else columns.
struct ConcatenatePixels {
  bool rows;
};

// Channels of all inputs one after the other, of which channel k of the result
// is number from[k]: slices and shuffles.
struct Select {
  std::shared_ptr<const std::vector<int64_t>> from;
};

// Columns and channels in each other's place, or rows and channels: [N, C, H, W] to
// [N, W, H, C] or [N, H, C, W].
struct ExchangeChannels {
  bool rows;
};

// Whether a selection is whole blocks of 16 channels, one after the other, which
// lie in blocked memory as they are.
bool is_run_of_blocks(const std::vector<int64_t>& from);

// [N, C, H, W] to [N, C * H * W]; `features` is what must come out, or -1.
struct Flatten {
  int64_t features = -1;
};

// [N, C * H * W] to [N, C, H, W].
struct Unflatten {
  Pair image{1, 1};
};

// Added to the scores of attention before their softmax: [windows, heads, queries, keys],
// where windows and heads may be 1 and serve all.
struct ScoreBias {
  int64_t windows;
  int64_t heads;
  std::vector<float> values;
};

// softmax(scale * q k^T + bias) v of each head by itself, where a head is one of `heads` equal
// runs of channels and the pixels of an image (or of a window of it) are the positions (Vaswani
// et al., Attention Is All You Need, 2017). Windows, and positions in one, are numbered row by
// row. Inputs: q, k, v; k and v may have an image of their own where q's is one window.
struct Attend {
  int64_t heads;
  float scale;
  // Windows that pixels see each other in: neighbours in such sides (Swin), or, dilated, pixels
  // that are so far apart (MaxViT's grid). 0: the whole side.
  Pair window{0, 0};
  bool dilated = false;
  std::shared_ptr<const ScoreBias> bias = nullptr;
};

// Constant pixels before those of images of one row, or behind them: [N, C, 1, W] to
// [N, C, 1, count + W].
struct AddPixels {
  std::shared_ptr<const std::vector<float>> values;  // [count][C]
  int64_t count;
  bool behind = false;
};

// x op values, [C, H, W], the same for every image, or values op x where they are `first`; op
// is no quotient.
struct CombineImage {
  kernels::CombineTask::How how;
  std::shared_ptr<const std::vector<float>> values;
  Pair image;
  bool first = false;
};

// The same pixels in their order as images of other sides. In blocked memory these lie as
// before.
struct ReshapePixels {
  Measure height, width;
};

using Layer = std::variant<Convolve,
                           TransposedConvolve,
                           Linear,
                           MaxPool,
                           AveragePool,
                           AdaptivePool,
                           AcrossChannels,
                           Activate,
                           Round,
                           Add,
                           Combine,
                           CombineNumbers,
                           Affine,
                           Normalize,
                           Slope,
                           GroupNorm,
                           Upsample,
                           Pad,
                           PixelShuffle,
                           PixelUnshuffle,
                           Softmax,
                           Concatenate,
                           ConcatenatePixels,
                           ExchangeChannels,
                           Select,
                           Flatten,
                           Unflatten,
                           Attend,
                           AddPixels,
                           CombineImage,
                           ReshapePixels>;

using Value = int;

struct Instruction {
  Layer layer;
  std::vector<Value> inputs;
  Value output;
};

const char* layer_name(const Layer& layer);

class Network {
 public:
  Value add_input();
  Value add(Layer layer, std::vector<Value> inputs);
  // Sizes for which the number is 0 are refused.
  void require(Measure holds) { requirements_.push_back(std::move(holds)); }
  void set_outputs(std::vector<Value> outputs) { outputs_ = std::move(outputs); }

  // For inputs of these sizes: makes one layer of what a kernel does in one pass,
  // bias, residual, activation and pooling behind a convolution. Drops what nobody
  // reads. Throws as infer_sizes.
  void fuse(const std::vector<Size>& inputs);

  int inputs() const { return inputs_; }
  int values() const { return values_; }
  const std::vector<Instruction>& instructions() const { return instructions_; }
  // As they were before `fuse`: measures may look at values that none of them makes now.
  const std::vector<Instruction>& unfused() const {
    return unfused_.empty() ? instructions_ : unfused_;
  }
  const std::vector<Measure>& requirements() const { return requirements_; }
  const std::vector<Value>& outputs() const { return outputs_; }

 private:
  void drop_unread();
  void drop_empty_padding(const std::vector<Size>& sizes);

  int inputs_ = 0;  // the first values
  int values_ = 0;
  std::vector<Instruction> instructions_;
  std::vector<Instruction> unfused_;
  std::vector<Measure> requirements_;
  std::vector<Value> outputs_;
};

// The sides of a window in such an image; 0 where they do not divide it.
Pair window_of(const Attend& layer, Pair image);

// What a convolution makes of an image, before any pooling; 0 where the image
// is smaller than the kernel.
Pair convolved(const Convolve& layer, Pair image);

// Sizes of all values; throws std::invalid_argument, naming the layer, when a
// layer cannot take its inputs.
std::vector<Size> infer_sizes(const Network& network, const std::vector<Size>& inputs);

}  // namespace convship::plan
