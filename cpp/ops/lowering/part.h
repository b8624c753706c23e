// Translates nodes of a frozen TorchScript graph, one after the other, into the
// layers of a plan.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ops/lowering/arrangement.h"
#include "ops/lowering/facts.h"
#include "ops/lowering/formula.h"
#include "ops/lowering/layers.h"
#include "ops/lowering/weights.h"
#include "ops/planned.h"
#include "plan/network.h"

namespace convship::ops::lowering {

// Nodes that a plan serves.
class Part {
 public:
  using How = kernels::CombineTask::How;

  // See lower.h. The network refers to weights that are kept there.
  Part(bool rounds_freely, plan::Pair expected, std::shared_ptr<Weights> weights)
      : rounds_freely_(rounds_freely), expected_(expected), weights_(std::move(weights)) {}

  // Takes the node into the part; false, and nothing has changed, where no
  // layer means the same. Constants may be offered or left out.
  bool accept(torch::jit::Node* node);

  // Whether a plan is worth its conversions, of which a convolution needs none: it reads and
  // writes what LibTorch has. Of others with weights, some layers are.
  bool worthwhile() const;

  // What nodes that are none of the part, or the caller, read of it: tensors, and what
  // `kept` nodes make of them once more; nothing where that cannot be had.
  struct Outgoing {
    std::vector<torch::jit::Value*> tensors;
    std::vector<torch::jit::Node*> kept;
  };
  std::optional<Outgoing> outgoing();

  const std::vector<torch::jit::Node*>& nodes() const { return nodes_; }
  const std::vector<torch::jit::Value*>& inputs() const { return inputs_; }

  plan::Network network(const std::vector<torch::jit::Value*>& outputs) const;
  const std::shared_ptr<Weights>& weights() const { return weights_; }
  // Whether images of other sides than those that are expected may have another network.
  bool depends_on_sides() const { return depends_on_sides_; }
  // How many each of the tensors has.
  std::vector<int64_t> dimensions(const std::vector<torch::jit::Value*>& tensors) const;

 private:
  using Value = torch::jit::Value;
  using Node = torch::jit::Node;

  bool translate(Node* node);
  std::optional<Outgoing> find_outgoing() const;
  void settle_outgoing();
  // Of images, or of sequences, which are images of one row.
  bool convolution(Node* node, std::size_t groups, bool may_transpose);
  bool transposed_convolution(Node* node,
                              std::size_t output_padding,
                              std::size_t groups,
                              std::size_t dilation);
  bool conv_pool2d(Node* node);
  bool linear(Node* node);
  // What a linear layer makes of a tensor's last dimension, all channels of an image.
  Arrangement pointwise(const Arrangement& x,
                        const at::Tensor& weight,
                        const std::optional<at::Tensor>& bias);
  std::optional<bool> translate_activation(Node* node, std::string_view kind);
  bool activation(Node* node, kernels::conv2d::Activation activation, bool in_place);
  bool gelu(Node* node);
  bool elu(Node* node, bool in_place);
  bool celu(Node* node, bool in_place);
  bool randomized_relu(Node* node, bool in_place);
  bool glu(Node* node);
  bool leaky_relu(Node* node, bool in_place);
  bool clamp(Node* node, bool in_place);
  bool prelu(Node* node);
  bool softplus(Node* node);
  bool convert(Node* node);
  bool fake_quantize(Node* node);
  bool max_pool(Node* node, bool row);
  bool average_pool(Node* node, bool row);
  bool adaptive_pool(Node* node, plan::Reduction reduction, bool row);
  struct Reduced;
  std::optional<Reduced> reduced(const Arrangement& x,
                                 const Value* over,
                                 const Value* keep,
                                 plan::Reduction reduction) const;
  bool reduce(Node* node, plan::Reduction reduction);
  bool variance(Node* node, bool root);
  bool norm(Node* node);
  bool norm_of_heads(Node* node, const Arrangement& x);
  bool flatten(Node* node);
  bool view(Node* node);
  bool view_as(Node* node);
  bool view_to(Node* node, const Numbers& shape);
  bool unsqueeze(Node* node);
  bool unflatten(Node* node);
  bool squeeze(Node* node);
  bool expand(Node* node);
  bool expand_as(Node* node);
  bool expand_to(Node* node, Numbers sizes);
  bool transpose(Node* node, std::optional<int64_t> a, std::optional<int64_t> b);
  bool permute(Node* node);
  bool contiguous(Node* node);
  bool select_one(Node* node);
  bool channel_shuffle(Node* node);
  bool chunk(Node* node);
  bool split(Node* node);
  bool unbind(Node* node);
  bool slice(Node* node);
  bool slice_pixels(Node* node, Arrangement x, std::size_t dimension);
  struct Cut;
  std::optional<Arrangement> piece_of(const Cut& what,
                                      kernels::conv2d::Range range,
                                      int64_t step = 1);
  bool cut(Node* node, const Cut& what, const std::vector<int64_t>& ends);
  bool matmul(Node* node);
  bool einsum(Node* node);
  bool score(Node* node, Arrangement q, Arrangement k);
  bool turn_scores(Node* node, Scores scores, const std::vector<int64_t>& order);
  bool change_scores(Node* node, Scores scores, How how);
  std::optional<double> factor_of(plan::Value x) const;
  bool clamp_min(Node* node);
  std::optional<Arrangement> attention(const Scores& scores, const Arrangement& values);
  std::optional<Arrangement> attention_of_channels(const Scores& scores,
                                                   const Arrangement& values,
                                                   const std::vector<plan::Value>& inputs,
                                                   int64_t depth);
  std::optional<at::Tensor> causal_mask(const Arrangement& q, const Arrangement& k);
  bool scaled_dot_product_attention(Node* node);
  bool native_multi_head_attention(Node* node);
  bool combine(Node* node, How how, bool in_place);
  bool combine(Node* node, Value* a, Value* b, How how, bool in_place);
  bool combine(Node* node, plan::Layer layer, Arrangement a, Arrangement b);
  bool combine_with(
      Node* node, const Value* x, How how, const Value* constants, bool reversed, bool in_place);
  bool combine_with(
      Node* node, const Value* x, How how, double number, bool reversed, bool in_place);
  std::optional<at::Tensor> numbers_in(const Value* value) const;
  std::optional<at::Tensor> by_channel(const Value* constants, const Value* x) const;
  bool add_product(Node* node);
  bool combine_image(
      Node* node, const Value* x, How how, const at::Tensor& constants, bool reversed);
  bool subtract_from(Node* node);
  bool power(Node* node, bool in_place);
  plan::Value squares(plan::Value x);
  plan::Value roots(plan::Value x);
  bool stack(Node* node);
  std::optional<Pieces> pieces_in(const Value* list) const;
  plan::Value folded(const std::vector<Arrangement>& pieces, const plan::Layer& layer);
  bool are_alike(const std::vector<Arrangement>& pieces) const;
  Arrangement stacked(const std::vector<Arrangement>& pieces, std::size_t dimension);
  bool reduce_pieces(Node* node, plan::Reduction reduction);
  bool softmax_of_pieces(Node* node, const Arrangement& x, std::size_t dimension);
  std::optional<std::vector<Arrangement>> pieces_of(const Arrangement& x, std::size_t dimension);
  bool concatenate(Node* node);
  bool concatenate(Node* node, const std::vector<Arrangement>& tensors);
  bool concatenate_pixels(Node* node, std::vector<Arrangement> tensors, std::size_t dimension);
  bool split_pixels(Node* node);
  std::optional<Axis::Side> side_of(const Arrangement& x, std::size_t dimension) const;
  bool add_pixels(Node* node, const Tensors& tensors);
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
  bool pixel_unshuffle(Node* node);
  plan::Measure scaled(plan::Value x, int64_t dimension, double scale) const;
  std::shared_ptr<const std::vector<float>> for_each_channel(std::optional<plan::Value> x,
                                                             double number) const;
  plan::Value times(plan::Value x, double factor);
  bool scale_by_number(Node* node, const Value* x, double scale, double shift, bool in_place);
  bool softmax(Node* node, bool logarithm);
  bool identity(Node* node, std::size_t training);
  bool size(Node* node);
  bool length(Node* node);
  bool unpack(Node* node);
  bool item(Node* node);
  bool pass_on(Node* node);
  bool is(Node* node, bool negated);
  bool message(Node* node);
  bool property(Node* node, std::string_view kind);
  bool list(Node* node);
  bool join_lists(Node* node);
  bool join_tensors(Node* node);
  bool tuple(Node* node);
  bool slice_list(Node* node);
  bool dictionary(Node* node);
  bool set_item(Node* node);
  bool compute(Node* node);
  // Of tensors that the graph makes of numbers, as masks are.
  bool new_zeros(Node* node);
  bool arange(Node* node);
  bool compute_table(Node* node);
  bool is_table(const Value* value) const;
  bool view_scores(Node* node, Scores scores);
  bool roll(Node* node);
  bool branch(Node* node);
  bool loop(Node* node);
  // Where one value of the graph is another tensor in each round, so that no list or other
  // fact may refer to it.
  static bool in_loop(const Node* node);
  // The nodes of a block, one after the other.
  bool run(const torch::jit::Block* block);
  // What is known of `from` is known of `to`.
  bool alias(const Value* to, const Value* from);

  // A tensor of the part, or one that becomes an input; nothing where it cannot
  // have that many dimensions.
  std::optional<plan::Value> tensor(Value* value, int64_t dimensions);
  // The same of what is in the part already.
  std::optional<plan::Value> inner(const Value* value, int64_t dimensions);
  // As whose dimensions the part knows a tensor.
  std::optional<Arrangement> arranged(const Value* value) const;
  // Whether its first dimension counts through images, and nothing else does.
  bool is_one_for_each_image(const Arrangement& tensor) const;
  // Whether they count through all of its channels and nothing else.
  bool shows_channels(const Axes& axes, plan::Value x) const;
  std::optional<plan::Value> settle(const Arrangement& what, bool may_move);
  Arrangement in_a_row(Arrangement what);
  plan::Value as_image(plan::Value x);  // of one pixel, if it is a matrix
  Arrangement exchanged(const Arrangement& x, Axis::Side side);
  std::optional<Arrangement> with_channels_at(const Arrangement& x, std::size_t d, int64_t count);
  std::optional<plan::Value> as_standard(const Arrangement& x);
  std::optional<Arrangement> unshuffled_pixels(const Arrangement& x, std::size_t d);
  std::optional<plan::Value> shuffled_pixels(const Arrangement& x);
  std::optional<Arrangement> reordered(const Arrangement& x, const Dimensions& like);
  void align(Arrangement& a, Arrangement& b);
  void show(const Value* output, Arrangement what);
  bool show_again(const Node* node, Arrangement what);
  std::optional<Arrangement> from_a_row(const Arrangement& x, const Numbers& shape);
  std::optional<Dimensions> reshaped(const Arrangement& x,
                                     const Dimensions& from,
                                     const Numbers& shape);
  std::optional<Dimensions> reshaped_as_expected(plan::Value x,
                                                 const Axes& from,
                                                 const Numbers& shape);
  void learn_side(plan::Value x, const Axes& axes, int64_t number);
  std::optional<Arrangement> some_of_channels(const Arrangement& x,
                                              std::size_t dimension,
                                              kernels::conv2d::Range range,
                                              bool drop);
  plan::Value crop(plan::Value x, Axis::Side side, plan::Measure begin, plan::Measure end);
  // Whose elements these are.
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
  // What numbers are for images of the size that is expected, if that depends on nothing else;
  // from now on sizes that make others of them are LibTorch's.
  std::optional<int64_t> expect(const Formula& formula);
  std::optional<std::vector<plan::Size>> expected_sizes(int64_t batch) const;
  // Whether it holds for them, or nothing is known of them.
  bool may_expect(const std::function<bool(const std::vector<plan::Size>&)>& holds) const;
  bool learn(const Value* value, const std::optional<Formula>& known);
  plan::Measure measure(const Formula& formula) const;
  std::vector<plan::Measure> measures(const Numbers& numbers) const;
  // Whether it is how many images the tensor has.
  bool is_batch(const Formula& number, plan::Value x) const {
    const Extent* e = number.extent();
    return e && e->axes == Axes{{Axis::Side::n}} && layers_.source(e->value) == layers_.source(x);
  }
  // Sizes that the plan takes.
  void require(std::function<bool(const std::vector<plan::Size>&)> holds) {
    requirements_.push_back(std::move(holds));
  }
  std::optional<Cut> to_cut(const Node* node, std::size_t dimension) const;
  void bind(const Value* value, plan::Value to, int64_t dimensions);
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
  bool may_overwrite(const Value* value) const;

  bool rounds_freely_;
  plan::Pair expected_;
  std::shared_ptr<Weights> weights_;
  Layers layers_;
  Facts facts_;
  std::unordered_map<const Value*, plan::Value> tensors_;
  std::unordered_map<const Value*, plan::Value> made_as_;  // before any was written over
  std::vector<std::function<bool(const std::vector<plan::Size>&)>> requirements_;
  // Inputs of the whole part, which come before its layers' values in a network.
  std::shared_ptr<plan::Value> input_count_ = std::make_shared<plan::Value>(0);
  std::unordered_set<const void*> tables_;  // memory of tensors that the graph makes of numbers
  bool tables_written_ = false;
  bool depends_on_sides_ = false;
  int64_t rounds_ = 0;  // of all loops, which may be in each other
  std::vector<Node*> nodes_;
  std::vector<Value*> inputs_;
};

}  // namespace convship::ops::lowering
