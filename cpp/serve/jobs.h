// What a worker does for the two kinds of requests.
#pragma once

#include <memory>

#include "serve/batcher.h"
#include "serve/message.h"
#include "serve/served_model.h"

namespace convship::serve {

// What jobs are made of; outlives them.
struct Serving {
  const ServedModel& model;
  ModelMetrics& metrics;
  int max_batch;
};

// Each reads the request and returns a job, or answers what is wrong with it
// and returns nothing. They do not throw.
std::unique_ptr<Job> prepare_infer(const Serving& serving, Request request, Done done);
std::unique_ptr<Job> prepare_predict(const Serving& serving, Request request, Done done);

}  // namespace convship::serve
