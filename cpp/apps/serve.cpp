#include <algorithm>
#include <set>

#include "serve/options.h"
#include "verbs.h"

namespace convship::apps {
namespace {

struct ServeArguments {
  std::vector<std::string> models;  // FILE or NAME=FILE
  LoadArguments load;
  serve::Options options;
  int workers = 0;
  int max_delay_us = 0;
  std::size_t max_body_mib = 32;
  double read_timeout = 15, write_timeout = 15, idle_timeout = 75, drain_timeout = 30;
};

// Names stand in paths of URLs.
void check_name(const std::string& name) {
  const bool is_plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
  });
  if (name.empty() || !is_plain) {
    throw Error(ErrorCode::usage,
                "a model's name must be of letters, digits, '.', '_' and '-', got '" + name +
                    "'; give it one: NAME=FILE");
  }
}

std::vector<serve::ServedFile> files(const std::vector<std::string>& models) {
  std::vector<serve::ServedFile> files;
  std::set<std::string> names;
  for (const std::string& each : models) {
    const std::size_t equals = each.find('=');
    serve::ServedFile file;
    file.path = equals == std::string::npos ? each : each.substr(equals + 1);
    file.name = equals == std::string::npos ? file.path.stem().string() : each.substr(0, equals);
    check_name(file.name);
    if (!names.insert(file.name).second) {
      throw Error(ErrorCode::usage, "each model must have a name of its own, got '" + file.name +
                                        "' twice; give them names: NAME=FILE");
    }
    files.push_back(std::move(file));
  }
  return files;
}

int run(ServeArguments& arguments) {
  using Seconds = std::chrono::duration<double>;
  serve::Options& options = arguments.options;
  options.models = files(arguments.models);
  options.load = arguments.load.resolved();
  options.batch.workers = arguments.workers == 0 ? default_threads() : arguments.workers;
  options.batch.threads = options.load.threads == 0 ? default_threads() : options.load.threads;
  options.batch.max_delay = std::chrono::microseconds(arguments.max_delay_us);
  options.http.max_body_bytes = arguments.max_body_mib << 20;
  options.http.max_buffered_bytes =
      std::max(options.http.max_buffered_bytes, 2 * options.http.max_body_bytes);
  options.http.read_timeout = Seconds(arguments.read_timeout);
  options.http.write_timeout = Seconds(arguments.write_timeout);
  options.http.idle_timeout = Seconds(arguments.idle_timeout);
  options.http.drain_timeout = Seconds(arguments.drain_timeout);
  if (options.http.tls_certificate.empty() != options.http.tls_key.empty()) {
    throw Error(ErrorCode::usage, "TLS needs both --tls-certificate and --tls-key, got one");
  }
  serve::serve(options);
  return kOk;
}

void add_limits(CLI::App& verb, ServeArguments& arguments) {
  auto& [http, batch, models, load, keys, quiet] = arguments.options;
  verb.add_option("--max-batch", batch.max_batch,
                  "Rows that one call of a model may answer, and one request may hold")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  verb.add_option("--max-delay-us", arguments.max_delay_us,
                  "How long a request may wait for others to share its call, in microseconds")
      ->check(CLI::Range(0, 10'000'000))
      ->capture_default_str();
  verb.add_option("--workers", arguments.workers, "Calls at a time; 0 = CPU affinity and quota")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  verb.add_option("--max-queue", batch.max_queue, "Requests that may wait; more get status 429")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  verb.add_option("--max-body-mib", arguments.max_body_mib, "Largest body of a request")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  verb.add_option("--max-connections", http.max_connections, "Clients at a time")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  const auto seconds = [&](const char* name, double& value, const char* help) {
    verb.add_option(name, value, help)->check(CLI::Range(0.1, 86400.0))->capture_default_str();
  };
  seconds("--read-timeout", arguments.read_timeout,
          "Seconds in which a whole header, and then a whole body, must arrive");
  seconds("--write-timeout", arguments.write_timeout,
          "Seconds in which a client must take its reply");
  seconds("--idle-timeout", arguments.idle_timeout,
          "Seconds that a connection may rest between requests");
  seconds("--drain-timeout", arguments.drain_timeout,
          "Seconds after SIGTERM in which what was taken is answered");
}

}  // namespace

Action add_serve(CLI::App& verb) {
  auto arguments = std::make_shared<ServeArguments>();
  auto& [http, batch, models, load, keys, quiet] = arguments->options;
  verb.add_option("models", arguments->models,
                  "Model files; clients know each as NAME in NAME=FILE, or by the file's name")
      ->required();
  arguments->load.options.threads = 1;
  arguments->load.add_to(verb);
  verb.add_option("--host", http.host,
                  "Address to listen on; others than this machine need 0.0.0.0")
      ->capture_default_str();
  verb.add_option("--port", http.port, "Port to listen on; 0 = any, which the log tells")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  verb.add_option("--api-key-file", keys,
                  "File of keys, one a line, of which clients must send one");
  verb.add_option("--tls-certificate", http.tls_certificate,
                  "Serve HTTPS with this certificate (PEM, with its chain)");
  verb.add_option("--tls-key", http.tls_key, "The certificate's private key (PEM)");
  add_limits(verb, *arguments);
  verb.add_flag("--quiet", quiet, "No line in the log for each request");
  return [arguments] { return run(*arguments); };
}

}  // namespace convship::apps
