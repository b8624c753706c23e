// Which path means what.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace convship::serve {

enum class Action {
  page,
  page_style,
  page_script,
  metrics,
  live,
  ready,
  server_metadata,
  model_list,
  repository_index,
  model_metadata,
  model_ready,
  model_card,
  infer,
  predict,
};

struct Route {
  Action action;
  std::string model;    // empty: the path names none
  std::string version;  // empty: any
  bool takes_body = false;
};

// Nothing for a path that does not exist.
std::optional<Route> find_route(std::string_view path);

}  // namespace convship::serve
