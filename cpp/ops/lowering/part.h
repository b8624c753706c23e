// Translates nodes of a frozen TorchScript graph, one after the other, into the
// layers of a plan.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "ops/lowering/formula.h"
#include "ops/planned.h"
#include "plan/network.h"

namespace convship::ops::lowering {

// Nodes that a plan serves.
class Part {
 public:
  using How = kernels::CombineTask::How;

  // rounds_freely: see lower.h.
  explicit Part(bool rounds_freely) : rounds_freely_(rounds_freely) {}

  // Takes the node into the part; false, and nothing has changed, where no
  // layer means the same. Constants may be offered or left out.
  bool accept(torch::jit::Node* node);

  // Whether a plan is worth its conversions: some layers, and one of weights.
  bool worthwhile() const;

  // What nodes that are none of the part, or the caller, read of it: tensors, and what
  // `kept` nodes make of them once more; nothing where that cannot be had.
  struct Outgoing {
    std::vector<torch::jit::Value*> tensors;
    std::vector<torch::jit::Node*> kept;
  };
  std::optional<Outgoing> outgoing() const;

  const std::vector<torch::jit::Node*>& nodes() const { return nodes_; }
  const std::vector<torch::jit::Value*>& inputs() const { return inputs_; }

  plan::Network network(const std::vector<torch::jit::Value*>& outputs) const;
  // How many each of the tensors has.
  std::vector<int64_t> dimensions(const std::vector<torch::jit::Value*>& tensors) const;
  const std::vector<at::Tensor>& weights() const { return weights_; }

 private:
  using Value = torch::jit::Value;
  using Node = torch::jit::Node;
  // What is known about a value that is no tensor.
  struct SizesOf {
    plan::Value value;
  };
  using Numbers = std::vector<Formula>;  // a list of them
  using Tensors = std::vector<Value*>;
  using Dictionary = std::map<std::string, Value*>;  // of tensors by names
  using Pieces = std::vector<plan::Value>;           // a list of tensors that one node made
  struct Grouped {                                   // images as [N, groups, C / groups, H, W]
    plan::Value value;
    int64_t groups;
    bool swapped;  // [N, C / groups, groups, H, W]
  };
  struct ChannelsLast {  // images as [N, H, W, C]
    plan::Value value;
  };
  struct Column {  // a matrix as [N, F, 1]
    plan::Value value;
  };
  struct Narrowed {  // a tensor as bfloat16
    plan::Value value;
    const Value* tensor;
  };
  using Known = std::variant<Formula,
                             SizesOf,
                             Numbers,
                             Tensors,
                             Dictionary,
                             Pieces,
                             Grouped,
                             ChannelsLast,
                             Column,
                             Narrowed>;

  bool translate(Node* node);
  // Of images, or of sequences, which are images of one row.
  bool convolution(Node* node, std::size_t groups, bool may_transpose);
  bool transposed_convolution(Node* node,
                              std::size_t output_padding,
                              std::size_t groups,
                              std::size_t dilation);
  bool conv_pool2d(Node* node);
  bool linear(Node* node);
  bool pointwise(Node* node, const at::Tensor& weight, const std::optional<at::Tensor>& bias);
  bool activation(Node* node, kernels::conv2d::Activation activation, bool in_place);
  bool gelu(Node* node);
  bool elu(Node* node, bool in_place);
  bool leaky_relu(Node* node, bool in_place);
  bool clamp(Node* node, bool in_place);
  bool prelu(Node* node);
  bool softplus(Node* node);
  bool convert(Node* node);
  bool fake_quantize(Node* node);
  bool max_pool(Node* node, bool row);
  bool average_pool(Node* node, bool row);
  bool adaptive_pool(Node* node, bool average, bool row);
  bool mean(Node* node);
  bool maximum(Node* node);
  bool reduce(Node* node, bool average);
  bool flatten(Node* node);
  bool view(Node* node);
  bool group(Node* node, const Numbers& shape);
  bool unsqueeze(Node* node);
  bool unflatten(Node* node);
  bool unflatten(Node* node, plan::Value matrix, plan::Pair image, int64_t dimensions);
  bool squeeze(Node* node);
  bool transpose_column(Node* node);
  bool show_column(const Value* value, plan::Value matrix);
  plan::Value matrix_of(plan::Value images);
  bool to_images(Node* node, plan::Value matrix, const Numbers& sizes);
  bool expand(Node* node);
  bool transpose(Node* node);
  bool permute(Node* node);
  bool contiguous(Node* node);
  bool ungroup(Node* node, const Numbers& shape);
  bool channel_shuffle(Node* node);
  bool chunk(Node* node);
  bool split(Node* node);
  bool slice(Node* node);
  bool cut(Node* node, const std::vector<int64_t>& ends);
  bool combine(Node* node, How how, bool in_place);
  bool combine_with(
      Node* node, const Value* x, How how, const Value* constants, bool reversed, bool in_place);
  bool combine_with(
      Node* node, const Value* x, How how, double number, bool reversed, bool in_place);
  bool subtract_from(Node* node);
  bool power(Node* node);
  bool square(Node* node);
  bool concatenate(Node* node);
  bool append(Node* node);
  bool batch_norm(Node* node);
  bool layer_norm(Node* node);
  bool group_norm(Node* node);
  bool instance_norm(Node* node);
  bool normalize_groups(
      Node* node, int64_t groups, const Value* weight, const Value* bias, const Value* epsilon);
  bool upsample(Node* node, bool bilinear);
  bool pad(Node* node);
  bool pixel_shuffle(Node* node);
  plan::Measure scaled(plan::Value x, int64_t dimension, double scale) const;
  bool scale_by_number(Node* node, const Value* x, double scale, double shift, bool in_place);
  bool softmax(Node* node, bool logarithm);
  bool identity(Node* node, std::size_t training);
  bool size(Node* node);
  bool length(Node* node);
  bool unpack(Node* node);
  bool item(Node* node);
  bool pass_on(Node* node);
  bool is_nothing(Node* node, bool negated);
  bool list(Node* node);
  bool join_lists(Node* node);
  bool slice_list(Node* node);
  bool dictionary(Node* node);
  bool set_item(Node* node);
  bool compute(Node* node);
  bool branch(Node* node);
  bool loop(Node* node);
  // Where one value of the graph is another tensor in each round, so that no list may
  // refer to it.
  static bool in_loop(const Node* node);
  // The nodes of a block, one after the other.
  bool run(const torch::jit::Block* block);
  // What is known of `from` is known of `to`.
  bool alias(const Value* to, const Value* from);

  // A tensor of the part, or one that becomes an input; nothing where it cannot
  // have that many dimensions.
  std::optional<plan::Value> tensor(Value* value, int64_t dimensions);
  // Whose elements these are, whichever dimension has the channels.
  std::optional<plan::Value> elements(const Value* value) const;
  // Makes sure that the part has a value to round, with as many dimensions as what is
  // behind it wants.
  bool has_to_round(Value* value);
  // weight [c_out, c_in / groups, kernel]; strides, padding and dilation of none.
  plan::Convolve convolve(const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias,
                          int64_t groups,
                          const plan::Rounding& rounding);
  // What a layer of weights multiplies: these weights, [rows, count], and the
  // input before it is rounded, or as it is where nothing rounds it.
  struct Multiplied {
    plan::Value input;
    plan::Rounding rounding;
  };
  Multiplied multiplied(plan::Value input, const at::Tensor& weight) const;
  bool inside(const Value* value) const { return tensors_.count(value) > 0; }
  // The size of images that have it whatever the input's.
  std::optional<plan::Pair> image(plan::Value value) const;
  bool has_one_pixel(plan::Value value) const;
  // Of a tensor of the part, where weights tell.
  std::optional<int64_t> channels(plan::Value value) const;
  template <typename Kind>
  const Kind* known(const Value* value) const {
    const auto found = known_.find(value);
    return found == known_.end() ? nullptr : std::get_if<Kind>(&found->second);
  }
  // A constant of the graph, or what the part knows of a value that is no tensor.
  std::optional<Formula> formula(const Value* value) const;
  std::optional<int64_t> number(const Value* value) const;
  std::optional<Numbers> numbers(const Value* value) const;
  // What inputs `first` and the next of a slice's node leave of so many.
  std::optional<kernels::conv2d::Range> slice_of(const Node* node,
                                                 std::size_t first,
                                                 int64_t count) const;
  // Of one of the value's dimensions.
  std::optional<Formula> extent(plan::Value value, int64_t dimension) const;
  bool learn(const Value* value, const std::optional<Formula>& known);
  plan::Measure measure(const Formula& formula) const;
  // Of the tensor: layers keep their first input's.
  bool is_batch(const Formula& number, plan::Value x) const {
    const auto input_of = [&](plan::Value value) {
      while (value >= 0) value = layers_[value].inputs[0];
      return value;
    };
    const Extent* e = number.extent();
    return e && e->dimension == 0 && input_of(e->value) == input_of(x);
  }
  bool is_batch_and_image(const Numbers& shape, plan::Value x) const;
  std::optional<int64_t> channels_to_cut(const Node* node, std::size_t dimension) const;
  // Where a channel comes from that was concatenated or selected, perhaps often.
  std::pair<plan::Value, int64_t> origin(plan::Value value, int64_t channel) const;
  void bind(const Value* value, plan::Value to, int64_t dimensions);
  plan::Value push(plan::Layer layer, std::vector<plan::Value> inputs);
  // The node's result, written over its first input where in_place.
  void finish(Node* node,
              plan::Layer layer,
              std::vector<plan::Value> inputs,
              int64_t dimensions,
              bool in_place = false);
  // The same for layers that every element, or every pixel, has by itself: the result
  // has its channels where `like` has them.
  void finish_like(Node* node,
                   const Value* like,
                   plan::Layer layer,
                   std::vector<plan::Value> inputs);
  // The same for layers that every element has by itself, over x where in_place.
  bool finish_each(Node* node, const Value* x, plan::Layer layer, bool in_place);
  void show_channels_last(const Value* value, plan::Value of);
  // Channels of a value in a new order, read from where they were made.
  plan::Value select(plan::Value value, std::vector<int64_t> from);
  bool may_overwrite(const Value* value) const;
  const at::Tensor& keep(at::Tensor weight);

  bool rounds_freely_;
  // Values of the part: what its layers make from 0 on, inputs from -1 down.
  std::vector<plan::Instruction> layers_;
  std::unordered_map<plan::Value, int64_t> dimensions_;
  std::unordered_map<const Value*, plan::Value> tensors_;
  std::unordered_map<const Value*, plan::Value> made_as_;  // before any was written over
  std::unordered_map<const Value*, Known> known_;
  std::unordered_map<plan::Value, plan::Value> base_;  // of a view: whose memory it shows
  std::unordered_set<plan::Value> shown_;              // by views with other dimensions
  std::unordered_set<const Value*> aliased_;           // lists of more than one name
  struct Requirement {
    Formula condition;
    bool holds;
  };
  std::vector<Requirement> requirements_;  // of sizes that the plan takes
  // Inputs of the whole part, which come before its layers' values in a network.
  std::shared_ptr<plan::Value> input_count_ = std::make_shared<plan::Value>(0);
  std::vector<Node*> nodes_;
  std::vector<Value*> inputs_;
  std::vector<at::Tensor> weights_;
};

}  // namespace convship::ops::lowering
