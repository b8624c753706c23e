#include "serve/model_service.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "convship/model.h"
#include "serve/jobs.h"
#include "serve/page.h"

namespace convship::serve {
namespace {

using nlohmann::ordered_json;

Reply page_reply(std::string_view body, const char* content_type) {
  Reply reply;
  reply.body = body;
  reply.content_type = content_type;
  reply.headers = {{"Content-Security-Policy",
                    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                    "img-src 'self' data: "
                    "blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
                   {"Referrer-Policy", "no-referrer"},
                   {"Cross-Origin-Opener-Policy", "same-origin"},
                   {"Cross-Origin-Resource-Policy", "same-origin"}};
  return reply;
}

std::string names_of(const std::vector<std::unique_ptr<ServedModel>>& models) {
  std::string text;
  for (const auto& each : models) text += (text.empty() ? "" : ", ") + each->name();
  return text;
}

// What anybody may see: nothing about the models.
bool is_open(Action action) {
  return action == Action::live || action == Action::ready || action == Action::page ||
         action == Action::page_style || action == Action::page_script;
}

}  // namespace

ModelService::ModelService(const Options& options,
                           std::vector<std::unique_ptr<ServedModel>> models,
                           Metrics& metrics,
                           Log& log)
    : options_(options),
      keys_(options.api_key_file.empty() ? ApiKeys() : ApiKeys(options.api_key_file)),
      models_(std::move(models)),
      metrics_(metrics),
      log_(log),
      batcher_(options.batch) {}

void ModelService::drain() {
  draining_ = true;
  batcher_.hurry();
}

const ServedModel* ModelService::find(const Route& route) const {
  if (route.model.empty()) return models_.front().get();
  if (!route.version.empty() && route.version != kVersion) return nullptr;
  const auto found = std::find_if(models_.begin(), models_.end(),
                                  [&](const auto& each) { return each->name() == route.model; });
  return found == models_.end() ? nullptr : found->get();
}

std::optional<Reply> ModelService::refuse(const Request& request) {
  const auto route = find_route(request.path);
  if (keys_.required() && !(route && is_open(route->action)) &&
      !keys_.allow(request.authorization)) {
    metrics_.count_rejection(Rejection::key);
    Reply reply = error_reply(401, "this server wants an API key: Authorization: Bearer KEY");
    reply.headers.emplace_back("WWW-Authenticate", "Bearer");
    return reply;
  }
  if (!route) {
    return error_reply(404, "there is no such path: " + request.path +
                                "; see / and https://kserve.github.io for the Open Inference "
                                "Protocol");
  }
  const std::string allowed = route->takes_body ? "POST" : "GET, HEAD";
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (route->takes_body ? request.method != "POST" : !reads) {
    Reply reply = error_reply(405, request.path + " takes " + allowed + ", got " + request.method);
    reply.headers.emplace_back("Allow", allowed);
    return reply;
  }
  const ServedModel* model = find(*route);
  if (model == nullptr) {
    const std::string version = route->version.empty() ? "" : " of version " + route->version;
    return error_reply(404, "there is no model '" + route->model + "'" + version +
                                "; the models are " + names_of(models_) + ", each of version " +
                                kVersion);
  }
  if (route->action == Action::predict && !model->classifies()) {
    return error_reply(400, "model '" + model->name() +
                                "' holds no preprocessing and labels, so it cannot classify "
                                "images; POST tensors to infer");
  }
  if ((route->action == Action::infer || route->action == Action::predict) && batcher_.full()) {
    return queue_full(*model);
  }
  return {};
}

void ModelService::answer(Request request, Done done) {
  const Route route = *find_route(request.path);  // refuse() has seen that there is one
  if (route.action == Action::infer || route.action == Action::predict) {
    enqueue(route, std::move(request), std::move(done));
  } else {
    done(describe(route));
  }
}

void ModelService::enqueue(const Route& route, Request request, Done done) {
  const ServedModel& model = *find(route);
  const Serving serving{model, metrics_.of(model.name()), options_.batch.max_batch};
  const auto prepare = route.action == Action::infer ? &prepare_infer : &prepare_predict;
  // std::function wants to be copied, a body does not.
  auto shared = std::make_shared<Request>(std::move(request));
  const bool taken = batcher_.submit([=] { return prepare(serving, std::move(*shared), done); });
  if (!taken) done(queue_full(model));
}

Reply ModelService::queue_full(const ServedModel& model) {
  metrics_.count_rejection(Rejection::queue_full);
  Reply reply =
      busy_reply(429, "the queue is full (--max-queue " + std::to_string(options_.batch.max_queue) +
                          "); try again later");
  reply.trace.model = model.name();
  return reply;
}

Reply ModelService::readiness(const ordered_json& ready) const {
  return draining_ ? error_reply(503, "the server is shutting down") : json_reply(ready);
}

Reply ModelService::describe(const Route& route) const {
  switch (route.action) {
    case Action::page:
      return page_reply(kPageHtml, "text/html; charset=utf-8");
    case Action::page_style:
      return page_reply(kPageStyle, "text/css; charset=utf-8");
    case Action::page_script:
      return page_reply(kPageScript, "text/javascript; charset=utf-8");
    case Action::metrics:
      return metrics_reply();
    case Action::live:
      return json_reply({{"live", true}});
    case Action::ready:
      return readiness({{"ready", true}});
    case Action::server_metadata:
      return json_reply({{"name", "convship"},
                         {"version", build().convship},
                         {"extensions", {"binary_tensor_data"}}});
    case Action::model_list: {
      ordered_json names = ordered_json::array();
      for (const auto& each : models_) names.push_back(each->name());
      return json_reply({{"models", names}});
    }
    case Action::repository_index: {
      ordered_json list = ordered_json::array();
      for (const auto& each : models_) {
        list.push_back({{"name", each->name()}, {"version", kVersion}, {"state", "READY"}});
      }
      return json_reply(list);
    }
    case Action::model_metadata:
      return json_reply(find(route)->metadata());
    case Action::model_ready:
      return readiness({{"name", route.model}, {"ready", true}});
    case Action::model_card:
      return json_reply(find(route)->card());
    default:
      return error_reply(500, "this action is answered elsewhere");
  }
}

Reply ModelService::metrics_reply() const {
  Reply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  reply.body = metrics_.text(batcher_.depth(), log_.dropped());
  return reply;
}

void ModelService::finished(const Request& request, const Reply& reply) {
  const double seconds =
      request.arrived == Clock::time_point()
          ? 0
          : std::chrono::duration<double>(Clock::now() - request.arrived).count();
  metrics_.count_request(reply.trace.model, reply.status);
  if (!reply.trace.model.empty() && reply.status == 200) {
    metrics_.of(reply.trace.model).request_seconds.observe(seconds);
  }
  if (options_.quiet && reply.status < 500) return;
  ordered_json fields = {{"id", request.id},          {"peer", request.peer},
                         {"method", request.method},  {"path", request.path},
                         {"status", reply.status},    {"ms", seconds * 1e3},
                         {"bytes", reply.body.size()}};
  if (!reply.trace.model.empty()) {
    fields["model"] = reply.trace.model;
    fields["rows"] = reply.trace.rows;
    fields["batch_rows"] = reply.trace.batch_rows;
    fields["queue_ms"] = reply.trace.queue_seconds * 1e3;
  }
  if (reply.status >= 400) fields["error"] = reply.body;
  log_.write(reply.status >= 500 ? "error" : "info", "request", std::move(fields));
}

}  // namespace convship::serve
