#include "ops/lowering/part.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "ops/lowering/constants.h"

namespace convship::ops::lowering {

using torch::jit::Node;
using torch::jit::Value;

bool Part::accept(Node* node) {
  if (node->kind() == c10::prim::Constant) return true;
  const std::size_t inputs = inputs_.size();
  // Of several nodes in one, some may have been taken before one is not.
  std::optional<Part> before;
  if (!node->blocks().empty()) before = *this;
  if (!translate(node)) {
    if (before) *this = *std::move(before);
    for (; inputs_.size() > inputs; inputs_.pop_back()) {
      tensors_.erase(inputs_.back());
    }
    return false;
  }
  nodes_.push_back(node);
  return true;
}

bool Part::worthwhile() const {
  constexpr std::size_t kSomeLayers = 3;
  return std::any_of(layers_.begin(), layers_.end(), [&](const auto& i) {
    if (std::holds_alternative<plan::Convolve>(i.layer)) return true;
    return layers_.size() >= kSomeLayers &&
           (std::holds_alternative<plan::TransposedConvolve>(i.layer) ||
            std::holds_alternative<plan::Linear>(i.layer));
  });
}

namespace {

// Whether running the node once more, later, makes the same.
bool is_repeatable(const Node* node) {
  const auto changes = [](const torch::jit::Use& use) {
    const c10::FunctionSchema* schema = use.user->maybeSchema();
    return !use.user->blocks().empty() || (schema && schema->is_mutable());
  };
  const c10::FunctionSchema* schema = node->maybeSchema();
  if (!node->blocks().empty() || (schema && schema->is_mutable())) return false;
  const auto outputs = node->outputs();
  return std::all_of(outputs.begin(), outputs.end(), [&](const Value* output) {
    return output->type()->isSubtypeOf(*c10::TensorType::get()) ||
           std::none_of(output->uses().begin(), output->uses().end(), changes);
  });
}

}  // namespace

std::optional<Part::Outgoing> Part::outgoing() {
  Part settled = *this;
  settled.settle_outgoing();
  auto found = settled.find_outgoing();
  if (!found || !found->kept.empty()) return find_outgoing();
  *this = std::move(settled);
  return found;
}

// As images what others read, rather than as views that LibTorch makes.
void Part::settle_outgoing() {
  const std::unordered_set<const Node*> mine(nodes_.begin(), nodes_.end());
  for (const Node* node : nodes_) {
    for (const Value* value : node->outputs()) {
      const auto& uses = value->uses();
      const bool leaves = std::any_of(uses.begin(), uses.end(), [&](const auto& use) {
        for (const Node* user = use.user; user; user = user->owningBlock()->owningNode()) {
          if (mine.count(user)) return false;
        }
        return true;
      });
      if (leaves && facts_.find<Arrangement>(value)) {
        inner(value, static_cast<int64_t>(arranged(value)->rank()));
      }
    }
  }
}

std::optional<Part::Outgoing> Part::find_outgoing() const {
  const std::unordered_set<const Node*> mine(nodes_.begin(), nodes_.end());
  std::unordered_set<const Node*> kept;
  const auto stays = [&](const Node* user) {
    for (; user; user = user->owningBlock()->owningNode()) {
      if (mine.count(user)) return kept.count(user) > 0;
    }
    return true;
  };
  Outgoing found;
  std::unordered_set<plan::Value> leaving;
  // Backwards, for what is kept reads what is before it.
  for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) {
    for (Value* value : (*node)->outputs()) {
      const auto& uses = value->uses();
      const bool leaves =
          std::any_of(uses.begin(), uses.end(), [&](const auto& use) { return stays(use.user); });
      if (!leaves) continue;
      if (!inside(value)) {
        const auto inputs = (*node)->inputs();
        const bool still = std::all_of(inputs.begin(), inputs.end(), [&](const Value* input) {
          return !inside(input) || tensors_.at(input) == made_as_.at(input);
        });
        const bool written = tables_written_ && is_table(value);
        if (!still || written || !is_repeatable(*node)) return {};
        if (kept.insert(*node).second) found.kept.push_back(*node);
        continue;
      }
      // Another name of an input, or two of one tensor, would come out in memory of their
      // own, and what is written through one not be seen through the other.
      const plan::Value leaves_as = tensors_.at(value);
      if (leaves_as < 0 || !leaving.insert(leaves_as).second) return {};
      found.tensors.push_back(value);
    }
  }
  std::reverse(found.tensors.begin(), found.tensors.end());
  std::reverse(found.kept.begin(), found.kept.end());
  // A view and what it shows would come out in memory of their own.
  std::unordered_set<plan::Value> roots;
  for (const plan::Value value : leaving) {
    const plan::Value root = layers_.root(value);
    if (root < 0 || !roots.insert(root).second) return {};
  }
  return found;
}

std::vector<int64_t> Part::dimensions(const std::vector<Value*>& tensors) const {
  std::vector<int64_t> all;
  for (const Value* tensor : tensors) all.push_back(layers_.dimensions(tensors_.at(tensor)));
  return all;
}

plan::Network Part::network(const std::vector<Value*>& outputs) const {
  plan::Network network;
  for (std::size_t i = 0; i < inputs_.size(); ++i) network.add_input();
  const auto number = [&](plan::Value v) {
    return v < 0 ? -1 - v : v + static_cast<plan::Value>(inputs_.size());
  };
  for (const plan::Instruction& i : layers_) {
    std::vector<plan::Value> operands;
    for (const plan::Value v : i.inputs) operands.push_back(number(v));
    network.add(i.layer, std::move(operands));
  }
  *input_count_ = static_cast<plan::Value>(inputs_.size());
  for (const auto& holds : requirements_) {
    network.require({0, [holds](const std::vector<plan::Size>& sizes) {
                       return static_cast<int64_t>(holds(sizes));
                     }});
  }
  std::vector<plan::Value> results;
  for (const Value* value : outputs) results.push_back(number(tensors_.at(value)));
  network.set_outputs(std::move(results));
  return network;
}

std::optional<plan::Value> Part::tensor(Value* value, int64_t dimensions) {
  if (arranged(value)) return inner(value, dimensions);
  if (!value->type()->isSubtypeOf(*c10::TensorType::get()) || constant(value)) return {};
  if (facts_.has(value)) return {};  // made here, and no plan has it
  // Of what LibTorch computes nothing is known; of the caller's tensors the
  // first layer tells, and another kind is answered by LibTorch.
  if (dimensions != 4 && value->node()->kind() != c10::prim::Param) return {};
  inputs_.push_back(value);
  const auto input = -static_cast<plan::Value>(inputs_.size());
  bind(value, input, dimensions);
  return input;
}

std::optional<plan::Value> Part::inner(const Value* value, int64_t dimensions) {
  const auto found = arranged(value);
  if (!found || found->rank() != static_cast<std::size_t>(dimensions)) return {};
  const auto x = settle(*found, true);
  if (x && !inside(value)) {
    bind(value, *x, dimensions);
    layers_.mark_shown(found->value);
  }
  return x;
}

void Part::bind(const Value* value, plan::Value to, int64_t dimensions) {
  facts_.forget(value);
  tensors_[value] = made_as_[value] = to;
  layers_.set_dimensions(to, dimensions);
}

void Part::finish(Node* node,
                  plan::Layer layer,
                  std::vector<plan::Value> inputs,
                  int64_t dimensions,
                  bool in_place) {
  const plan::Value before = inputs[0];
  const plan::Value after = layers_.add(std::move(layer), std::move(inputs), dimensions);
  if (in_place) {
    for (auto& [value, to] : tensors_) {
      if (to == before) to = after;
    }
  }
  bind(node->output(0), after, dimensions);
}

bool Part::may_overwrite(const Value* value) const {
  const auto found = tensors_.find(value);
  const bool is_input = std::find(inputs_.begin(), inputs_.end(), value) != inputs_.end();
  return found != tensors_.end() && !is_input && found->second >= 0 &&
         !layers_.is_shared(found->second);
}

}  // namespace convship::ops::lowering
