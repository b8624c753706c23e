// A bounded queue, and threads that answer what waits in it: requests of one
// kind together, as far as a call may take them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "serve/message.h"
#include "serve/options.h"

namespace convship::serve {

// A request that is ready to run.
class Job {
 public:
  virtual ~Job() = default;
  using Jobs = std::vector<std::unique_ptr<Job>>;
  // Answers all of `jobs`, which are of this job's key and hold it too.
  virtual void run(Jobs& jobs) = 0;

  std::string key;  // jobs of equal keys may share a call; empty: with none
  std::int64_t rows = 1;
  Clock::time_point arrived;
};

// Makes a job of a request, or answers it at once and returns nothing.
using Prepare = std::function<std::unique_ptr<Job>()>;

class Batcher {
 public:
  explicit Batcher(const BatchOptions& options);
  ~Batcher();  // answers what waits first
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  // False: the queue is full. `prepare` runs in one of the threads and must not throw.
  bool submit(Prepare prepare);
  // Nobody waits for company any more.
  void hurry();
  bool full() const;
  std::size_t depth() const;

 private:
  struct Group {
    Job::Jobs jobs;
    std::int64_t rows = 0;
  };

  void work();
  void add(std::unique_ptr<Job> job);
  // The first group that need not wait for more; end() where all should.
  std::deque<Group>::iterator ready();

  const BatchOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Prepare> prepares_;
  std::deque<Group> groups_;  // by the age of their first job
  std::size_t waiting_ = 0;   // requests that no thread has begun to run
  bool hurrying_ = false;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace convship::serve
