// What the jobs of both kinds share.
#pragma once

#include <string>
#include <utility>

#include "serve/batcher.h"
#include "serve/failure.h"
#include "serve/jobs.h"

namespace convship::serve {

// The reply to what `work` throws; `model` gives messages the name clients know.
template <typename Work>
Reply replying(const ServedModel& model, const Work& work) {
  try {
    return work();
  } catch (const Failure& failure) {
    return error_reply(failure.status(), failure.what());
  } catch (const Error& error) {
    const bool theirs = error.code() == ErrorCode::usage || error.code() == ErrorCode::image;
    return error_reply(theirs ? 400 : 500, model.for_clients(error.what()));
  } catch (const std::bad_alloc&) {
    return busy_reply(503, "the server has no memory for this request; try again later");
  } catch (const std::exception& error) {
    return error_reply(500, model.for_clients(error.what()));
  }
}

inline std::int64_t rows_of(const Job::Jobs& jobs) {
  std::int64_t rows = 0;
  for (const auto& each : jobs) rows += each->rows;
  return rows;
}

class ModelJob : public Job {
 public:
  ModelJob(const Serving& serving, Request request, Done done)
      : serving_(serving), request_(std::move(request)), done_(std::move(done)) {
    arrived = request_.arrived;
  }

  // One call for all. What fails together is tried alone, so that nobody gets
  // the error of a neighbour.
  void run(Jobs& jobs) final;

 protected:
  // The replies of `jobs` by one call; all are of this class.
  virtual std::vector<Reply> answer(const Jobs& jobs) = 0;

  Serving serving_;
  Request request_;

 private:
  std::vector<Reply> timed(const Jobs& jobs);
  void reply(Reply reply, std::int64_t batch_rows, Clock::time_point begun);

  Done done_;
};

// A job of that kind once it has read its request; nothing where it could not,
// which is then answered.
template <typename Kind>
std::unique_ptr<Job> prepared(const Serving& serving, Request request, Done done) {
  auto job = std::make_unique<Kind>(serving, std::move(request), done);
  bool is_ready = false;
  Reply reply = replying(serving.model, [&] {
    job->read();
    is_ready = true;
    return Reply();
  });
  if (is_ready) return job;
  reply.trace.model = serving.model.name();
  done(std::move(reply));
  return nullptr;
}

}  // namespace convship::serve
