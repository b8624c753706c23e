#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "verbs.h"

namespace convship::apps {
namespace {

using nlohmann::json;

int selftest(ModelArguments& arguments) {
  const Model model = arguments.load();
  const std::vector<Check> checks = model.selftest();
  const auto passed =
      std::count_if(checks.begin(), checks.end(), [](const Check& c) { return c.passed; });
  const bool all = !checks.empty() && passed == static_cast<std::ptrdiff_t>(checks.size());
  if (arguments.json) {
    json list = json::array();
    for (const Check& check : checks) {
      list.push_back({{"golden", check.golden},
                      {"stage", check.stage},
                      {"max_error", check.max_error},
                      {"tolerance", check.tolerance},
                      {"passed", check.passed}});
    }
    std::cout << json{{"model", arguments.path.string()}, {"passed", all}, {"checks", list}}.dump()
              << '\n';
  } else {
    for (const Check& check : checks) {
      std::cout << (check.passed ? "ok    " : "DIFFER") << " golden " << check.golden << ' '
                << check.stage << ": largest error " << check.max_error << ", tolerance "
                << check.tolerance << '\n';
    }
    std::cout << passed << " of " << checks.size() << " checks passed\n";
  }
  return all ? kOk : kDifference;
}

}  // namespace

Action add_selftest(CLI::App& verb) {
  auto arguments = std::make_shared<ModelArguments>();
  arguments->add_to(verb);
  return [arguments] { return selftest(*arguments); };
}

}  // namespace convship::apps
