// What stands behind the handle of a model.
#pragma once

#include "c_api.h"
#include "convship/model.h"

struct convship_model : convship::c_api::Marked<convship_model> {
  static constexpr std::uint64_t kMark = 0x6d6f64656c20636e;
  explicit convship_model(convship::Model loaded) : model(std::move(loaded)) {}
  convship::Model model;
};

namespace convship::c_api {

inline const Model& model_of(const convship_model* handle) {
  return checked(handle, "model").model;
}

}  // namespace convship::c_api
