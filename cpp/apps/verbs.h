// The verbs of convship-run: each adds its subcommand to the parser and returns
// the action that runs it. Actions return the exit code and throw convship::Error.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "convship/model.h"

namespace convship::apps {

inline constexpr int kOk = 0;
inline constexpr int kDifference = 1;

using Action = std::function<int()>;

// How a model is loaded.
struct LoadArguments {
  std::string backend = "convship";
  std::filesystem::path public_key;
  Options options;

  void add_to(CLI::App& verb);
  Options resolved() const;  // the options, backend and keys included
};

// What every verb that loads a single model takes.
struct ModelArguments : LoadArguments {
  std::filesystem::path path;
  bool json = false;

  void add_to(CLI::App& verb);
  Model load();
};

Action add_predict(CLI::App& verb);
Action add_selftest(CLI::App& verb);
Action add_info(CLI::App& verb);
Action add_run(CLI::App& verb);
Action add_bench(CLI::App& verb);
Action add_stages(CLI::App& verb);
Action add_doctor(CLI::App& verb);
Action add_serve(CLI::App& verb);

}  // namespace convship::apps
