#include "serve/job.h"

#include <chrono>

namespace convship::serve {
namespace {

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

std::vector<Reply> ModelJob::timed(const Jobs& jobs) {
  const auto begun = Clock::now();
  std::vector<Reply> replies = answer(jobs);
  serving_.metrics.inference_seconds.observe(seconds(Clock::now() - begun));
  serving_.metrics.batch_rows.observe(static_cast<double>(rows_of(jobs)));
  return replies;
}

void ModelJob::reply(Reply reply, std::int64_t batch_rows, Clock::time_point begun) {
  reply.trace = {serving_.model.name(), rows, batch_rows, seconds(begun - arrived)};
  serving_.metrics.queue_seconds.observe(reply.trace.queue_seconds);
  done_(std::move(reply));
}

void ModelJob::run(Jobs& jobs) {
  const auto begun = Clock::now();
  if (jobs.size() > 1) {
    try {
      std::vector<Reply> replies = timed(jobs);
      const std::int64_t all_rows = rows_of(jobs);
      for (std::size_t i = 0; i < jobs.size(); ++i) {
        static_cast<ModelJob&>(*jobs[i]).reply(std::move(replies[i]), all_rows, begun);
      }
      return;
    } catch (const std::exception&) {
      // One of them is to blame; each alone says which, and why.
    }
  }
  for (auto& each : jobs) {
    auto& job = static_cast<ModelJob&>(*each);
    Jobs single;
    single.push_back(std::move(each));
    job.reply(replying(serving_.model, [&] { return std::move(job.timed(single).front()); }),
              job.rows, begun);
    each = std::move(single.front());  // lives until all are answered: it may be this one
  }
}

}  // namespace convship::serve
