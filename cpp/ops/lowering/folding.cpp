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
#include <utility>
#include <vector>

#include "ops/lowering/constants.h"

namespace convship::ops::lowering {

using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;

namespace {

// Larger ones would weigh more than computing them again.
constexpr int64_t kMostBytes = int64_t{1} << 24;

class Folding {
 public:
  explicit Folding(const torch::jit::Module& frozen)
      : graph_(frozen.get_method("forward").graph()), aliases_(graph_, /*isFrozen=*/true) {
    objects_[graph_->inputs()[0]] = frozen._ivalue();
  }

  void run() {
    find_attributes(graph_->block());
    for (const auto& [attribute, values] : attributes_) {
      if (!written_.count(attribute))
        make_constant(attribute.first->getAttr(attribute.second), values);
    }
    const std::vector<Node*> nodes(graph_->nodes().begin(), graph_->nodes().end());
    for (Node* node : nodes) {
      const auto inputs = values_of(node);
      if (!inputs || node->outputs().size() != 1 || aliases_.hasWriters(node)) continue;
      if (node->kind() == c10::prim::ListConstruct) {
        make_list(node, *inputs);
      } else if (const auto result = computed(node, *inputs)) {
        lists_or_tensors_[node->output()] = *result;
        const torch::jit::WithInsertPoint here(node);
        node->output()->replaceAllUsesWith(graph_->insertConstant(*result));
      }
    }
    torch::jit::EliminateDeadCode(graph_);
  }

 private:
  using Attribute = std::pair<c10::ivalue::Object*, std::string>;

  // Tensors that are read, whether by one node or more; and what is written to.
  void find_attributes(torch::jit::Block* block) {
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
      for (torch::jit::Block* inner : node->blocks()) find_attributes(inner);
    }
  }

  void make_constant(const c10::IValue& value, const std::vector<Value*>& reads) {
    if (!value.isTensor() || !value.toTensor().defined()) return;
    const torch::jit::WithInsertPoint here(*graph_->nodes().begin());
    Value* const made = graph_->insertConstant(value.toTensor().detach());
    for (Value* read : reads) read->replaceAllUsesWith(made);
  }

  std::optional<std::vector<c10::IValue>> values_of(const Node* node) const {
    std::vector<c10::IValue> values;
    for (const Value* input : node->inputs()) {
      const auto found = lists_or_tensors_.find(input);
      auto value =
          found == lists_or_tensors_.end() ? constant(input) : std::optional(found->second);
      if (!value) return {};
      values.push_back(*std::move(value));
    }
    return values;
  }

  // Of tensors, as an index is.
  void make_list(const Node* node, const std::vector<c10::IValue>& elements) {
    const auto type = node->output()->type()->cast<c10::ListType>();
    if (!type || std::none_of(elements.begin(), elements.end(),
                              [](const c10::IValue& v) { return v.isTensor(); })) {
      return;
    }
    c10::impl::GenericList list(type->getElementType());
    for (const c10::IValue& element : elements) list.push_back(element);
    lists_or_tensors_[node->output()] = list;
  }

  static std::optional<c10::IValue> computed(Node* node, const std::vector<c10::IValue>& inputs) {
    const c10::FunctionSchema* schema = node->maybeSchema();
    const bool of_tensors = std::any_of(inputs.begin(), inputs.end(), [](const c10::IValue& v) {
      return v.isTensor() || v.isTensorList() || v.isList();
    });
    if (!schema || schema->is_mutable() || schema->is_vararg() || node->hasSideEffects() ||
        node->isNondeterministic() || !node->blocks().empty() || !of_tensors ||
        !node->output()->type()->isSubtypeOf(*c10::TensorType::get())) {
      return {};
    }
    torch::jit::Stack stack(inputs);
    try {
      node->getOperation()(stack);
    } catch (const std::exception&) {
      return {};  // LibTorch says what is wrong, when it is asked
    }
    const c10::IValue result = stack.back();
    if (!result.isTensor() || static_cast<int64_t>(result.toTensor().nbytes()) > kMostBytes)
      return {};
    return result;
  }

  std::shared_ptr<Graph> graph_;
  torch::jit::AliasDb aliases_;
  std::unordered_map<const Value*, c10::intrusive_ptr<c10::ivalue::Object>> objects_;
  std::map<Attribute, std::vector<Value*>> attributes_;
  std::set<Attribute> written_;
  std::unordered_map<const Value*, c10::IValue> lists_or_tensors_;
};

}  // namespace

void fold_constants(const torch::jit::Module& frozen) { Folding(frozen).run(); }

}  // namespace convship::ops::lowering
