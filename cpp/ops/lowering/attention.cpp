// Attention (Vaswani et al., Attention Is All You Need, 2017), as one operator or as products,
// a scale, a bias and a softmax.
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "ops/lowering/constants.h"
#include "ops/lowering/heads.h"
#include "ops/lowering/part.h"

namespace convship::ops::lowering {

using kernels::conv2d::Activation;
using torch::jit::Node;
using torch::jit::Value;
using Side = Axis::Side;

namespace {

std::shared_ptr<const plan::ScoreBias> score_bias(const at::Tensor& bias) {
  if (!bias.defined()) return nullptr;
  return std::make_shared<const plan::ScoreBias>(
      plan::ScoreBias{bias.size(0), bias.size(1), *floats_of(bias)});
}

}  // namespace

// Of a tensor times a number.
std::optional<double> Part::factor_of(plan::Value x) const {
  if (x < 0) return {};
  const auto* affine = std::get_if<plan::Affine>(&layers_[x].layer);
  if (!affine || layers_[x].inputs.size() > 1) return {};
  const float scale = affine->scale->front();
  const auto all = [](const std::vector<float>& numbers, float number) {
    return std::all_of(numbers.begin(), numbers.end(), [&](float n) { return n == number; });
  };
  return all(*affine->scale, scale) && all(*affine->shift, 0) ? std::optional(scale) : std::nullopt;
}

std::optional<Arrangement> Part::attention(const Scores& scores, const Arrangement& values) {
  if (!scores.normal) return {};
  const Arrangement* each[] = {&scores.q, &scores.k, &values};
  std::vector<Heads> heads;
  std::vector<plan::Value> inputs;
  for (const Arrangement* x : each) {
    auto found = heads_of(*x, layers_.standard(x->value).dimensions);
    if (!found) return {};
    heads.push_back(*std::move(found));
    inputs.push_back(x->value);
  }
  for (std::size_t i : {1, 2}) {
    if (heads[i].heads != 1 || heads[0].heads == 1) continue;
    // One head of keys or values for all of the queries' (Shazeer, 2019).
    std::vector<int64_t> from;
    for (int64_t c = 0; c < heads[0].heads * heads[i].depth; ++c)
      from.push_back(c % heads[i].depth);
    inputs[i] = layers_.select(inputs[i], std::move(from));
    heads[i].heads = heads[0].heads;
  }
  for (const Heads& other : heads) {
    if (other.heads != heads[0].heads || other.others != heads[0].others ||
        other.window.h != heads[0].window.h || other.window.w != heads[0].window.w ||
        other.dilated != heads[0].dilated || other.of_channels != heads[0].of_channels) {
      return {};
    }
  }
  if (heads[0].depth != heads[1].depth && !heads[0].of_channels) return {};
  for (plan::Value& input : inputs) input = as_image(input);
  if (scores.factors.defined()) {
    if (scores.factors.numel() != heads[0].heads) return {};
    auto scale = floats_of(scores.factors.repeat_interleave(heads[0].depth));
    auto shift = std::make_shared<const std::vector<float>>(scale->size(), -0.0f);
    inputs[0] =
        layers_.add_like(inputs[0], plan::Affine{std::move(scale), std::move(shift)}, {inputs[0]});
  }
  if (heads[0].of_channels) return attention_of_channels(scores, values, inputs, heads[0].depth);
  double scale = scores.scale;
  for (plan::Value& input : {std::ref(inputs[0]), std::ref(inputs[1])}) {
    if (const auto factor = factor_of(input)) {
      scale *= *factor;
      input = layers_[input].inputs[0];
    }
  }
  const plan::Attend layer{heads[0].heads, static_cast<float>(scale), heads[0].window,
                           heads[0].dilated, score_bias(scores.bias)};
  Arrangement y = scores.q;
  y.value = layers_.add_like(inputs[0], layer, inputs);
  const int64_t depth = heads[2].depth;
  for (std::size_t d = 0; d + 2 < y.rank(); ++d) {
    for (Axis& axis : y.dimensions[d]) {
      if (is_channel(axis)) axis.step = depth;
    }
  }
  y.dimensions.back() = depth == 1 ? Axes{} : Axes{{Side::c, 1, depth}};
  return y;
}

// Between the channels of a head (El-Nouby et al., XCiT, 2021): where pixels are channels, they
// are the positions of windows of one row.
std::optional<Arrangement> Part::attention_of_channels(const Scores& scores,
                                                       const Arrangement& values,
                                                       const std::vector<plan::Value>& inputs,
                                                       int64_t depth) {
  if (scores.bias.defined()) return {};
  const Arrangement* shown[] = {&scores.q, &scores.k, &values};
  std::vector<Arrangement> each;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Arrangement row = in_a_row({inputs[i], shown[i]->dimensions});
    if (layers_.dimensions(row.value) != 3) return {};
    each.push_back(exchanged(row, Side::w));
  }
  const plan::Attend layer{1, static_cast<float>(scores.scale), {1, depth}};
  Arrangement y = each[0];
  y.value = layers_.add_like(y.value, layer, {y.value, each[1].value, each[2].value});
  y.dimensions.back() = each[2].dimensions.back();
  return exchanged(y, Side::w);
}

// Of queries and keys, of scores and values, or of a tensor and constants.
bool Part::matmul(Node* node) {
  const auto a = arranged(node->input(0)), b = arranged(node->input(1));
  if (const auto* found = facts_.find<Scores>(node->input(0))) {
    auto y = b && !found->turned ? attention(*found, *b) : std::nullopt;
    if (y) show(node->output(), *std::move(y));
    return y.has_value();
  }
  if (const auto* found = facts_.find<Scores>(node->input(1))) {
    // The same with rows for columns.
    if (!a || !found->turned || a->rank() != found->q.rank()) return false;
    Arrangement values = *a;
    std::swap(values.dimensions[values.rank() - 1], values.dimensions[values.rank() - 2]);
    auto y = attention(*found, values);
    if (!y) return false;
    std::swap(y->dimensions[y->rank() - 1], y->dimensions[y->rank() - 2]);
    show(node->output(), *std::move(y));
    return true;
  }
  if (a && b && a->rank() >= 3) {
    Arrangement k = *b;
    if (k.rank() != a->rank()) return false;
    std::swap(k.dimensions[k.rank() - 1], k.dimensions[k.rank() - 2]);
    return score(node, *a, std::move(k));
  }
  const auto weight = constant_weight(node->input(1), 2);
  if (!a || !weight || a->rank() < 3 || !shows_channels(a->dimensions.back(), a->value) ||
      layers_.channels(a->value) != weight->size(0)) {
    return false;
  }
  show(node->output(), pointwise(*a, weight->t().contiguous(), {}));
  return true;
}

namespace {

struct Equation {
  std::string a, b, result;
};

// Of two operands, a letter for each dimension.
std::optional<Equation> equation_of(const Value* value) {
  auto text = constant_string(value);
  if (!text) return {};
  std::erase(*text, ' ');
  const auto comma = text->find(','), arrow = text->find("->");
  if (comma == std::string::npos || arrow == std::string::npos || comma > arrow ||
      text->find('.') != std::string::npos || text->find(',', comma + 1) != std::string::npos) {
    return {};
  }
  return Equation{text->substr(0, comma), text->substr(comma + 1, arrow - comma - 1),
                  text->substr(arrow + 2)};
}

// The dimensions that the letters name, in the order of others.
std::optional<Arrangement> in_order(const Arrangement& x,
                                    const std::string& letters,
                                    const std::string& order) {
  if (letters.size() != x.rank() || order.size() != letters.size()) return {};
  Arrangement ordered{x.value, {}};
  for (const char letter : order) {
    const auto at = letters.find(letter);
    if (at == std::string::npos || letters.find(letter, at + 1) != std::string::npos) return {};
    ordered.dimensions.push_back(x.dimensions[at]);
  }
  return ordered;
}

}  // namespace

// Products as matmul's, whatever the order of dimensions.
bool Part::einsum(Node* node) {
  const auto equation = equation_of(node->input(0));
  const auto* list = facts_.find<Tensors>(node->input(1));
  if (!equation || !list || list->size() != 2 || equation->result.size() < 3) return false;
  const auto& [a, b, result] = *equation;
  const std::string before = result.substr(0, result.size() - 2);
  const char row = result[result.size() - 2], column = result.back();
  const auto x = arranged((*list)[0]), y = arranged((*list)[1]);
  if (const auto* found = facts_.find<Scores>((*list)[0])) {
    // Rows of scores, and what is summed over.
    if (!y || found->turned || a.size() != result.size() ||
        a.substr(0, a.size() - 1) != before + row) {
      return false;
    }
    const auto values = in_order(*y, b, before + a.back() + column);
    auto made = values ? attention(*found, *values) : std::nullopt;
    if (made) show(node->output(), *std::move(made));
    return made.has_value();
  }
  if (!x || !y) return false;
  const auto summed = std::find_if(a.begin(), a.end(), [&](char letter) {
    return result.find(letter) == std::string::npos && b.find(letter) != std::string::npos;
  });
  if (summed == a.end()) return false;
  auto q = in_order(*x, a, before + row + *summed), k = in_order(*y, b, before + column + *summed);
  return q && k && score(node, *std::move(q), *std::move(k));
}

bool Part::score(Node* node, Arrangement q, Arrangement k) {
  const auto queries = heads_of(q, layers_.standard(q.value).dimensions);
  const auto keys = heads_of(k, layers_.standard(k.value).dimensions);
  if (!queries || !keys || queries->heads != keys->heads ||
      queries->of_channels != keys->of_channels ||
      (queries->depth != keys->depth && !queries->of_channels)) {
    return false;
  }
  facts_.learn(node->output(), Scores{std::move(q), std::move(k)});
  return true;
}

// Rows for columns, or as they are.
bool Part::turn_scores(Node* node, Scores scores, const std::vector<int64_t>& order) {
  const std::size_t rank = scores.q.rank();
  if (order.size() != rank) return false;
  for (std::size_t d = 0; d < rank; ++d) {
    const std::size_t from = d + 2 < rank ? d : 2 * rank - 3 - d;
    if (place_of(order[d], rank) != from) return false;
  }
  if (scores.normal) {
    scores.turned = !scores.turned;
  } else if (scores.bias.defined() || scores.factors.defined()) {
    return false;
  } else {
    std::swap(scores.q, scores.k);
  }
  facts_.learn(node->output(), std::move(scores));
  return true;
}

// Dimensions before the queries and keys split or joined, as masks of windows need them.
bool Part::view_scores(Node* node, Scores scores) {
  const auto shape = facts_.numbers(node->input(1));
  if (!shape || shape->size() < 3 || scores.turned) return false;
  const Numbers before(shape->begin(), shape->end() - 2);
  const auto last = [](const Arrangement& x) { return x.dimensions[x.rank() - 2]; };
  if (count(last(scores.q)) != (*shape)[shape->size() - 2].integer() ||
      count(last(scores.k)) != shape->back().integer()) {
    return false;
  }
  for (Arrangement* x : {&scores.q, &scores.k}) {
    const std::size_t end = x->rank() - 2;
    const auto split = reshaped(*x, replaced(x->dimensions, end, end + 2, {}), before);
    if (!split) return false;
    x->dimensions = replaced(x->dimensions, 0, end, *split);
  }
  facts_.learn(node->output(), std::move(scores));
  return true;
}

// By a number; or with a bias added.
bool Part::change_scores(Node* node, Scores scores, How how) {
  const auto number = facts_.real(node->input(1));
  const auto numbers = facts_.constant_tensor(node->input(1));
  const bool product = how == How::multiply || how == How::divide;
  if (scores.normal || (product && scores.bias.defined())) return false;
  if (product && number && *number != 0) {
    scores.scale = how == How::multiply ? scores.scale * *number : scores.scale / *number;
  } else if (how == How::multiply && numbers && !scores.factors.defined()) {
    scores.factors = factors_of(*numbers, scores.q.dimensions);
    if (!scores.factors.defined()) return false;
  } else if (how == How::add && numbers && constant_number(node->input(2)) == 1.0) {
    const at::Tensor bias = bias_of(*numbers, scores.q.dimensions, scores.k.dimensions);
    if (!bias.defined()) return false;
    scores.bias = scores.bias.defined() ? scores.bias.add(bias) : bias;
  } else {
    return false;
  }
  facts_.learn(node->output(), std::move(scores));
  return true;
}

// Of the last dimension, a head's channels. Their squares are summed by a convolution, as often
// as there are channels.
bool Part::norm_of_heads(Node* node, const Arrangement& x) {
  const auto over = constant_ints(node->input(2));
  if (x.rank() < 2 || !over || over->size() != 1 || constant_int(node->input(3)) != 1) return false;
  const Axes& depth = x.dimensions.back();
  const auto all = layers_.channels(x.value);
  if (place_of(over->front(), x.rank()) != x.rank() - 1 || depth.size() != 1 ||
      !is_channel(depth[0]) || depth[0].step != 1 || !depth[0].count || !all ||
      *all % *depth[0].count != 0) {
    return false;
  }
  const plan::Value image = as_image(x.value);
  const at::Tensor ones = at::ones({*all, *depth[0].count, 1, 1});
  const plan::Value sums =
      layers_.add_like(image, convolve(ones, {}, *all / *depth[0].count, {}), {squares(image)});
  facts_.learn(node->output(), Norms{{roots(sums), x.dimensions}});
  return true;
}

// Of norms, or of a tensor.
bool Part::clamp_min(Node* node) {
  const auto least = constant_number(node->input(1));
  if (!least || !std::isfinite(static_cast<float>(*least))) return false;
  const Activation clamp{Activation::clamp, static_cast<float>(*least),
                         std::numeric_limits<float>::infinity()};
  const auto* norms = facts_.find<Norms>(node->input(0));
  if (!norms) return activation(node, clamp, false);
  Arrangement spread = norms->spread;
  spread.value = layers_.add_like(spread.value, plan::Activate{clamp}, {spread.value});
  facts_.learn(node->output(), Norms{std::move(spread)});
  return true;
}

// Of keys up to each query, for as many positions as are expected.
std::optional<at::Tensor> Part::causal_mask(const Arrangement& q, const Arrangement& k) {
  constexpr int64_t kMost = int64_t{1} << 24;
  const auto queries = expect(*dimension_size(q, -2));
  const auto keys = queries ? expect(*dimension_size(k, -2)) : std::nullopt;
  if (!keys || *queries < 1 || *keys < 1 || *queries > kMost / *keys) return {};
  return at::ones({*queries, *keys}, at::kBool).tril();
}

// query, key, value, mask, dropout, whether it is causal, scale, whether heads share keys
bool Part::scaled_dot_product_attention(Node* node) {
  const auto q = arranged(node->input(0)), k = arranged(node->input(1)),
             v = arranged(node->input(2));
  const auto scale = facts_.real(node->input(6));
  const auto causal = constant_int(node->input(5));
  const bool masked = !facts_.is_none(node->input(3));
  if (!q || !k || !v || q->rank() < 3 || constant_number(node->input(4)) != 0.0 || !causal ||
      (*causal != 0 && masked) ||  // which LibTorch refuses
      (!scale && !facts_.is_none(node->input(6))) || constant_int(node->input(7)) != 0) {
    return false;
  }
  Scores scores{*q, *k};
  const auto depth = count(q->dimensions.back());
  if (!depth) return false;
  scores.normal = true;
  scores.scale = scale ? *scale : 1 / std::sqrt(static_cast<double>(*depth));
  if (*causal != 0 || masked) {
    const auto given = *causal != 0 ? causal_mask(*q, *k) : facts_.constant_tensor(node->input(3));
    if (!given) return false;
    at::Tensor mask = *given;
    if (mask.scalar_type() == at::kBool) {
      mask = at::zeros(mask.sizes())
                 .masked_fill(mask.logical_not(), -std::numeric_limits<float>::infinity());
    }
    scores.bias = bias_of(mask, q->dimensions, k->dimensions);
    if (!scores.bias.defined()) return false;
  }
  auto y = attention(scores, *v);
  if (y) show(node->output(), *std::move(y));
  return y.has_value();
}

// query, key, value, channels, heads, weight and bias of all three, weight and bias of the
// result, mask, ...: of torch's MultiheadAttention, each input the same [N, positions, C].
bool Part::native_multi_head_attention(Node* node) {
  const auto x = arranged(node->input(0));
  const auto heads = constant_int(node->input(4));
  const auto weight = constant_weight(node->input(5), 2), bias = constant_weight(node->input(6), 1);
  const auto last = constant_weight(node->input(7), 2),
             last_bias = constant_weight(node->input(8), 1);
  if (!x || x->rank() != 3 || !heads || *heads < 1 || !weight || !bias || !last || !last_bias ||
      !facts_.is_none(node->input(9)) || !is_one_for_each_image(*x) ||
      !shows_channels(x->dimensions[2], x->value)) {
    return false;
  }
  for (std::size_t other : {1, 2}) {
    const auto same = arranged(node->input(other));
    if (!same || same->value != x->value || same->dimensions != x->dimensions) return false;
  }
  const auto count = layers_.channels(x->value);
  if (!count || *count % *heads != 0 || weight->size(0) != 3 * *count ||
      weight->size(1) != *count || last->size(0) != *count || last->size(1) != *count) {
    return false;
  }
  const plan::Value all = pointwise(*x, *weight, bias).value;
  const int64_t depth = *count / *heads;
  const auto axes = [](int64_t step, int64_t number) {
    return number == 1 ? Axes{} : Axes{{Side::c, step, number}};
  };
  const auto part = [&](int64_t number) {
    std::vector<int64_t> from;
    for (int64_t c = 0; c < *count; ++c) from.push_back(number * *count + c);
    return Arrangement{layers_.select(all, std::move(from)),
                       {x->dimensions[0], axes(depth, *heads), x->dimensions[1], axes(1, depth)}};
  };
  Scores scores{part(0), part(1), 1 / std::sqrt(static_cast<double>(depth))};
  scores.normal = true;
  const auto y = attention(scores, part(2));
  if (!y) return false;
  show(node->output(0), pointwise({y->value, x->dimensions}, *last, last_bias));
  return node->output(1)->uses().empty() || learn(node->output(1), Formula());
}

}  // namespace convship::ops::lowering
