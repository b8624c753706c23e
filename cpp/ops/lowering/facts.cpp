#include "ops/lowering/facts.h"

#include <algorithm>
#include <utility>

#include "ops/lowering/constants.h"

namespace convship::ops::lowering {

using torch::jit::Node;

void Facts::alias(const Value* to, const Value* from) {
  learn(to, facts_.at(from));
  aliased_.insert(to);
  aliased_.insert(from);
}

std::optional<Formula> Facts::formula(const Value* value) const {
  if (const auto* found = find<Formula>(value)) return *found;
  if (has(value)) return {};
  if (auto given = constant(value)) return Formula(*std::move(given));
  return {};
}

std::optional<int64_t> Facts::number(const Value* value) const {
  if (has(value)) {
    const auto found = formula(value);
    return found ? found->integer() : std::nullopt;
  }
  return constant_int(value);
}

std::optional<double> Facts::real(const Value* value) const {
  const auto found = find<Formula>(value);
  return found ? found->real() : constant_number(value);
}

std::optional<at::Tensor> Facts::constant_tensor(const Value* value) const {
  const auto found = formula(value);
  if (!found || !found->constant() || !found->constant()->isTensor()) return {};
  return found->constant()->toTensor();
}

bool Facts::is_none(const Value* value) const {
  const auto found = formula(value);
  return found && found->constant() && found->constant()->isNone();
}

std::optional<Numbers> Facts::numbers(const Value* value) const {
  if (const auto* list = find<Numbers>(value)) return *list;
  if (const auto* sizes = find<SizesOf>(value)) {
    return sizes_of(sizes->tensor);
  }
  const auto given = formula(value);
  const c10::IValue* list = given ? given->constant() : nullptr;
  if (!list ||
      !(list->isIntList() || list->isDoubleList() || list->isBoolList() || list->isTensorList())) {
    return {};
  }
  const auto elements = list->toList();
  Numbers all;
  for (std::size_t i = 0; i < elements.size(); ++i) all.emplace_back(elements.get(i));
  return all;
}

std::optional<Formula> Facts::operand(const Value* value) const {
  if (const auto found = formula(value)) return found;
  const auto* list = find<Numbers>(value);
  const auto type = list ? value->type()->cast<c10::ListType>() : nullptr;
  if (!type) return {};
  c10::impl::GenericList elements(type->getElementType());
  for (const Formula& element : *list) {
    if (!element.constant()) return {};
    elements.push_back(*element.constant());
  }
  return Formula(c10::IValue(std::move(elements)));
}

std::optional<kernels::conv2d::Range> Facts::slice(const Node* node,
                                                   std::size_t first,
                                                   int64_t count) const {
  const auto bound = [&](std::size_t i, int64_t otherwise) -> std::optional<int64_t> {
    if (lowering::is_none(node->input(i))) return otherwise;
    const auto given = number(node->input(i));
    if (!given) return {};
    return std::clamp(*given < 0 ? *given + count : *given, int64_t{0}, count);
  };
  const auto begin = bound(first, 0), end = bound(first + 1, count);
  if (!begin || !end) return {};
  return kernels::conv2d::Range{*begin, std::max(*begin, *end)};
}

}  // namespace convship::ops::lowering
