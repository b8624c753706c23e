// Paths, keys and limits: what becomes of a request.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "serve/api_key.h"
#include "serve/batcher.h"
#include "serve/log.h"
#include "serve/message.h"
#include "serve/metrics.h"
#include "serve/options.h"
#include "serve/routes.h"
#include "serve/served_model.h"

namespace convship::serve {

class ModelService final : public Service {
 public:
  ModelService(const Options& options,
               std::vector<std::unique_ptr<ServedModel>> models,
               Metrics& metrics,
               Log& log);

  std::optional<Reply> refuse(const Request& request) override;
  void answer(Request request, Done done) override;
  void finished(const Request& request, const Reply& reply) override;

  // Not ready any more: the server drains.
  void drain();

 private:
  const ServedModel* find(const Route& route) const;
  void enqueue(const Route& route, Request request, Done done);
  Reply queue_full(const ServedModel& model);
  // What `ready` says, while the server does not drain.
  Reply readiness(const nlohmann::ordered_json& ready) const;
  Reply describe(const Route& route) const;
  Reply metrics_reply() const;

  const Options& options_;
  const ApiKeys keys_;
  const std::vector<std::unique_ptr<ServedModel>> models_;
  Metrics& metrics_;
  Log& log_;
  std::atomic<bool> draining_ = false;
  Batcher batcher_;  // last: its threads use what is above
};

}  // namespace convship::serve
