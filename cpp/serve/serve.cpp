#include <cstdlib>
#include <memory>
#include <vector>

#include "serve/http_server.h"
#include "serve/model_service.h"
#include "serve/options.h"

namespace convship::serve {
namespace {

std::vector<std::unique_ptr<ServedModel>> load_models(const Options& options, Log& log) {
  std::vector<std::unique_ptr<ServedModel>> models;
  convship::Options load = options.load;
  load.threads = options.batch.threads;
  load.log = [&log](LogLevel level, std::string_view message) {
    if (level == LogLevel::debug) return;
    log.write(level == LogLevel::warning ? "warning" : "info", "model_message",
              {{"message", message}});
  };
  for (const ServedFile& file : options.models) {
    models.push_back(std::make_unique<ServedModel>(file, load, options.batch.max_batch));
    const ServedModel& model = *models.back();
    log.write("info", "model_loaded",
              {{"model", model.name()},
               {"path", file.path.string()},
               {"sha256", model.card()["sha256"]},
               {"batches", model.batches()},
               {"why_alone", model.why_alone()}});
  }
  return models;
}

// Whoever opens the server to others shall read it in the log.
void log_listening(const Options& options, const HttpServer& server, Log& log) {
  log.write("info", "listening",
            {{"url", server.url()},
             {"workers", options.batch.workers},
             {"threads", options.batch.threads},
             {"max_batch", options.batch.max_batch},
             {"max_delay_us", options.batch.max_delay.count()},
             {"api_key", !options.api_key_file.empty()},
             {"tls", !options.http.tls_certificate.empty()}});
  if (server.is_loopback()) return;
  std::string message = "the server listens beyond this machine: whoever reaches " + server.url() +
                        " can use the models";
  if (options.api_key_file.empty()) message += "; no API key is asked for (--api-key-file)";
  if (options.http.tls_certificate.empty()) {
    message += "; images, answers and keys travel unencrypted (--tls-certificate)";
  }
  log.write("warning", "listening_beyond_loopback", {{"message", message}});
}

}  // namespace

void serve(const Options& options) {
  Log log;
  std::vector<std::string> names;
  for (const ServedFile& each : options.models) names.push_back(each.name);
  Metrics metrics(names);
  ModelService service(options, load_models(options, log), metrics, log);
  HttpServer server(options.http, service, metrics, log);
  log_listening(options, server, log);
  const bool finished = server.run([&] { service.drain(); });
  log.write("info", "stopped", {{"finished", finished}});
  if (finished) return;
  // Calls that still run cannot be cut short, and nobody waits for them.
  log.flush();
  std::_Exit(EXIT_SUCCESS);
}

}  // namespace convship::serve
