#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>

#include "verbs.h"

namespace convship::apps {
namespace {

std::string read_key(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  // Nothing read would mean no key, and that every model is accepted.
  if (!in || text.empty()) {
    throw Error(ErrorCode::usage, path.string() + ": the public key cannot be read");
  }
  return text;
}

}  // namespace

void LoadArguments::add_to(CLI::App& verb) {
  verb.add_option("--backend", backend, "convship, or libtorch as it is (our kernels off)")
      ->check(CLI::IsMember({"convship", "libtorch"}));
  verb.add_option("--threads", options.threads,
                  "Threads inside one call; 0 = CPU affinity and quota")
      ->check(CLI::Range(0, 4096));
  verb.add_option("--public-key", public_key,
                  "PEM file of Ed25519 public keys; refuse every model that none of them signed");
  verb.add_option("--op-library", options.op_libraries,
                  "Shared library that registers operators of the model; may be repeated");
}

Options LoadArguments::resolved() const {
  Options all = options;
  all.backend = backend == "libtorch" ? Backend::libtorch : Backend::convship;
  if (!public_key.empty()) all.public_key = read_key(public_key);
  return all;
}

void ModelArguments::add_to(CLI::App& verb) {
  verb.add_option("model", path, "The model file (.pt)")->required();
  LoadArguments::add_to(verb);
  verb.add_flag(
      "--plain", options.allow_plain,
      "Accept a TorchScript file that convship did not write; it is a program, trust its origin");
  verb.add_flag("--json", json, "Results as JSON on stdout");
}

Model ModelArguments::load() {
  // Results have stdout for themselves.
  options.log = [](LogLevel level, std::string_view message) {
    if (level == LogLevel::debug) return;
    std::cerr << (level == LogLevel::warning ? "convship-run: warning: " : "") << message << '\n';
  };
  return Model::load(path, resolved());
}

namespace {

struct Verb {
  const char* name;
  const char* help;
  Action (*add)(CLI::App&);
};

constexpr Verb kVerbs[] = {
    {"predict", "Classify images (JPEG, PNG) and folders of them", add_predict},
    {"selftest", "Run the goldens in the file and compare every stage", add_selftest},
    {"info", "Describe the file and this build", add_info},
    {"run", "Run the network on tensors: .npy files in, .npy files out", add_run},
    {"serve", "Answer requests over HTTP: the Open Inference Protocol, images, a page", add_serve},
    {"bench", "Measure the network's latency natively", add_bench},
    {"doctor", "Tell what this machine and this installation have, and what is wrong", add_doctor},
    {"stages", "Write every stage's tensors of the given images, for comparisons", add_stages},
};

// CLI11 says of an unknown verb only that one is required.
std::string explain(const CLI::ParseError& error, int argc, char** argv) {
  std::string known;
  for (const Verb& verb : kVerbs) {
    if (argc > 1 && argv[1] == std::string(verb.name)) return error.what();
    known += (known.empty() ? "" : ", ") + std::string(verb.name);
  }
  const std::string given = argc > 1 ? std::string(", got '") + argv[1] + "'" : "";
  return "the verbs are " + known + given;
}

int run(int argc, char** argv) {
  CLI::App app("Runs convship models without Python.");
  app.set_version_flag("--version", "convship-run " CONVSHIP_VERSION);
  app.footer(
      "Results go to stdout, everything else to stderr. Exit codes: 0 ok, 1 a check found a\n"
      "difference, 2 usage, 3 bad model file, 4 bad image, 5 environment. See man convship-run.");
  app.require_subcommand(1);
  std::map<const CLI::App*, Action> actions;
  for (const Verb& verb : kVerbs) {
    CLI::App* subcommand = app.add_subcommand(verb.name, verb.help);
    actions[subcommand] = verb.add(*subcommand);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Help and version end here too, with code 0.
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << "convship-run: " << explain(error, argc, argv) << "; see convship-run --help\n";
    return static_cast<int>(ErrorCode::usage);
  }
  return actions.at(app.get_subcommands().front())();
}

}  // namespace
}  // namespace convship::apps

int main(int argc, char** argv) {
  // A reader that closes the pipe early is no crash; the write below fails instead.
  std::signal(SIGPIPE, SIG_IGN);
  int code = 0;
  try {
    code = convship::apps::run(argc, argv);
  } catch (const convship::Error& error) {
    std::cerr << "convship-run: " << error.what() << '\n';
    code = static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::cerr << "convship-run: " << error.what() << '\n';
    code = static_cast<int>(convship::ErrorCode::environment);
  }
  std::cout.flush();
  if (!std::cout && code == 0) {
    std::cerr << "convship-run: cannot write to standard output\n";
    code = static_cast<int>(convship::ErrorCode::environment);
  }
  // Everything is written and closed. LibTorch would now take its thousands of
  // operators apart one by one, for 50 ms.
  std::_Exit(code);
}
