#include "serve/routes.h"

#include <algorithm>
#include <array>
#include <vector>

namespace convship::serve {
namespace {

struct Fixed {
  std::string_view path;
  Action action;
  bool takes_body;
};

constexpr std::array kFixed = {
    Fixed{"/", Action::page, false},
    Fixed{"/page.css", Action::page_style, false},
    Fixed{"/page.js", Action::page_script, false},
    Fixed{"/metrics", Action::metrics, false},
    Fixed{"/predict", Action::predict, true},
    Fixed{"/v2", Action::server_metadata, false},
    Fixed{"/v2/health/live", Action::live, false},
    Fixed{"/v2/health/ready", Action::ready, false},
    Fixed{"/v2/models", Action::model_list, false},
    Fixed{"/v2/repository/index", Action::repository_index, true},
};

// What follows the model's name, and version.
constexpr std::array kOfModel = {
    Fixed{"", Action::model_metadata, false}, Fixed{"ready", Action::model_ready, false},
    Fixed{"card", Action::model_card, false}, Fixed{"infer", Action::infer, true},
    Fixed{"predict", Action::predict, true},
};

std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t slash = path.find('/');
    parts.push_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return parts;
    path.remove_prefix(slash + 1);
  }
}

}  // namespace

std::optional<Route> find_route(std::string_view path) {
  if (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const auto named = [](std::string_view text) {
    return [text](const Fixed& each) { return each.path == text; };
  };
  if (const auto* found = std::find_if(kFixed.begin(), kFixed.end(), named(path));
      found != kFixed.end()) {
    return Route{found->action, "", "", found->takes_body};
  }
  constexpr std::string_view kModels = "/v2/models/";
  if (!path.starts_with(kModels)) return {};
  auto parts = split(path.substr(kModels.size()));
  Route route{Action::model_metadata, std::string(parts[0]), "", false};
  parts.erase(parts.begin());
  if (parts.size() >= 2 && parts[0] == "versions") {
    route.version = parts[1];
    parts.erase(parts.begin(), parts.begin() + 2);
  }
  if (route.model.empty() || parts.size() > 1) return {};
  const auto* found =
      std::find_if(kOfModel.begin(), kOfModel.end(), named(parts.empty() ? "" : parts[0]));
  if (found == kOfModel.end() || (!parts.empty() && parts[0].empty())) return {};
  route.action = found->action;
  route.takes_body = found->takes_body;
  return route;
}

}  // namespace convship::serve
