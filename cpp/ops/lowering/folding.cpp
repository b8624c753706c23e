#include "ops/lowering/folding.h"

#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ops/lowering/constants.h"

namespace convship::ops::lowering {

using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;

namespace {

// Larger ones would weigh more than computing them again.
constexpr int64_t kMostBytes = int64_t{1} << 24;

// Runs, in their order, the nodes whose operands are known, as LibTorch would.
class Folding {
 public:
  explicit Folding(const torch::jit::Module& frozen)
      : graph_(frozen.get_method("forward").graph()), aliases_(graph_, /*isFrozen=*/true) {
    objects_[graph_->inputs()[0]] = frozen._ivalue();
  }

  void run() {
    find_attributes(graph_->block());
    for (const auto& [attribute, reads] : attributes_) {
      if (written_.count(attribute) == 0) {
        replace_attribute(attribute.first->getAttr(attribute.second), reads);
      }
    }
    const std::vector<Node*> nodes(graph_->nodes().begin(), graph_->nodes().end());
    for (Node* node : nodes) {
      if (node->kind() == c10::prim::Constant) continue;
      if (!fold(node)) leave(node);
    }
    torch::jit::EliminateDeadCode(graph_);
  }

 private:
  using Attribute = std::pair<c10::ivalue::Object*, std::string>;

  // Tensors that are read, whether by one node or more; and what is written to.
  void find_attributes(Block* block) {
    for (Node* node : block->nodes()) {
      const bool sets = node->kind() == c10::prim::SetAttr;
      const auto object = sets || node->kind() == c10::prim::GetAttr ? objects_.find(node->input(0))
                                                                     : objects_.end();
      if (object != objects_.end()) {
        const Attribute attribute(object->second.get(), node->s(c10::attr::name));
        if (sets) {
          written_.insert(attribute);
        } else if (node->output()->type()->isSubtypeOf(*c10::TensorType::get())) {
          attributes_[attribute].push_back(node->output());
          if (aliases_.hasWriters(node)) written_.insert(attribute);
        } else if (const c10::IValue value = object->second->getAttr(attribute.second);
                   value.isObject()) {
          objects_[node->output()] = value.toObject();
        }
      }
      for (Block* inner : node->blocks()) find_attributes(inner);
    }
  }

  void replace_attribute(const c10::IValue& value, const std::vector<Value*>& reads) {
    if (!value.isTensor() || !value.toTensor().defined()) return;
    const torch::jit::WithInsertPoint here(*graph_->nodes().begin());
    Value* const made = graph_->insertConstant(value.toTensor().detach());
    for (Value* read : reads) read->replaceAllUsesWith(made);
  }

  std::optional<std::vector<c10::IValue>> values_of(const Node* node) const {
    std::vector<c10::IValue> values;
    for (const Value* input : node->inputs()) {
      const auto found = known_.find(input);
      auto value = found == known_.end() ? constant(input) : std::optional(found->second);
      if (!value) return {};
      values.push_back(*std::move(value));
    }
    return values;
  }

  bool fold(Node* node) {
    const auto inputs = values_of(node);
    if (!inputs || node->outputs().size() != 1) return false;
    if (node->kind() == c10::prim::ListConstruct) return make_list(node, *inputs);
    auto result = computed(node, *inputs);
    if (!result) return false;
    // What is written to is replaced where it is read.
    if (result->isTensor() && aliases_.hasWriters(node)) {
      known_[node->output()] = *result;
      return true;
    }
    const torch::jit::WithInsertPoint here(node);
    node->output()->replaceAllUsesWith(graph_->insertConstant(*result));
    return true;
  }

  // Of tensors, as an index is.
  bool make_list(const Node* node, const std::vector<c10::IValue>& elements) {
    const auto type = node->output()->type()->cast<c10::ListType>();
    if (!type || std::none_of(elements.begin(), elements.end(),
                              [](const c10::IValue& v) { return v.isTensor(); })) {
      return false;
    }
    c10::impl::GenericList list(type->getElementType());
    for (const c10::IValue& element : elements) list.push_back(element);
    known_[node->output()] = list;
    return true;
  }

  // The node is LibTorch's, or a plan's. What it writes to is not known behind it, and it
  // reads tensors as they are by now, unless it makes views of them.
  void leave(Node* node) {
    for (auto known = known_.begin(); known != known_.end();) {
      const bool writes = aliases_.writesToAlias(node, {known->first});
      known = writes ? known_.erase(known) : std::next(known);
    }
    if (!node->blocks().empty()) return;
    for (std::size_t i = 0; i < node->inputs().size(); ++i) {
      Value* const input = node->input(i);
      const auto found = known_.find(input);
      if (found == known_.end() || !found->second.isTensor()) continue;
      const auto outputs = node->outputs();
      const bool is_copied = std::none_of(outputs.begin(), outputs.end(), [&](Value* output) {
        return aliases_.mayContainAlias(output, input);
      });
      if (!is_copied) continue;
      const torch::jit::WithInsertPoint here(node);
      node->replaceInput(i, graph_->insertConstant(found->second.toTensor().clone()));
    }
  }

  std::optional<c10::IValue> computed(Node* node, const std::vector<c10::IValue>& inputs) {
    const c10::FunctionSchema* schema = node->maybeSchema();
    if (!is_deterministic(node) || inputs.empty()) return {};
    // In place only where nobody else has the memory.
    if (schema->is_mutable() && !writes_to_new(*schema, inputs)) return {};
    torch::jit::Stack stack(inputs);
    try {
      node->getOperation()(stack);
    } catch (const std::exception&) {
      return {};  // LibTorch says what is wrong, when it is asked
    }
    const c10::IValue result = stack.back();
    if (result.isInt() || result.isDouble() || result.isBool()) return result;
    if (!result.isTensor() || static_cast<int64_t>(result.toTensor().nbytes()) > kMostBytes) {
      return {};
    }
    const bool is_view = std::any_of(inputs.begin(), inputs.end(), [&](const c10::IValue& v) {
      return v.isTensor() && v.toTensor().is_alias_of(result.toTensor());
    });
    if (!is_view) new_.insert(result.toTensor().storage().data());
    return result;
  }

  bool writes_to_new(const c10::FunctionSchema& schema,
                     const std::vector<c10::IValue>& inputs) const {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const c10::AliasInfo* alias = schema.arguments()[i].alias_info();
      const bool is_new =
          inputs[i].isTensor() && new_.count(inputs[i].toTensor().storage().data()) > 0;
      if (alias && alias->isWrite() && !is_new) return false;
    }
    return true;
  }

  std::shared_ptr<Graph> graph_;
  torch::jit::AliasDb aliases_;
  std::unordered_map<const Value*, c10::intrusive_ptr<c10::ivalue::Object>> objects_;
  std::map<Attribute, std::vector<Value*>> attributes_;
  std::set<Attribute> written_;
  std::unordered_map<const Value*, c10::IValue> known_;  // and written to, or lists
  std::unordered_set<const void*> new_;                  // memory that was made here
};

}  // namespace

void fold_constants(const torch::jit::Module& frozen) { Folding(frozen).run(); }

}  // namespace convship::ops::lowering
