#include "serve/batcher.h"

#include <algorithm>

#include "convship/model.h"

namespace convship::serve {

Batcher::Batcher(const BatchOptions& options) : options_(options) {
  for (int i = 0; i < options.workers; ++i) threads_.emplace_back([this] { work(); });
}

Batcher::~Batcher() {
  {
    const std::lock_guard lock(mutex_);
    hurrying_ = ending_ = true;
  }
  changed_.notify_all();
  for (std::thread& each : threads_) each.join();
}

bool Batcher::submit(Prepare prepare) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_ >= options_.max_queue) return false;
    ++waiting_;
    prepares_.push_back(std::move(prepare));
  }
  changed_.notify_one();
  return true;
}

void Batcher::hurry() {
  {
    const std::lock_guard lock(mutex_);
    hurrying_ = true;
  }
  changed_.notify_all();
}

bool Batcher::full() const {
  const std::lock_guard lock(mutex_);
  return waiting_ >= options_.max_queue;
}

std::size_t Batcher::depth() const {
  const std::lock_guard lock(mutex_);
  return waiting_;
}

void Batcher::add(std::unique_ptr<Job> job) {
  if (!job->key.empty()) {
    // The last group of its kind is the one that may have room.
    const auto found = std::find_if(groups_.rbegin(), groups_.rend(), [&](const Group& each) {
      return each.jobs.front()->key == job->key;
    });
    if (found != groups_.rend() && found->rows + job->rows <= options_.max_batch) {
      found->rows += job->rows;
      found->jobs.push_back(std::move(job));
      return;
    }
  }
  Group group;
  group.rows = job->rows;
  group.jobs.push_back(std::move(job));
  groups_.push_back(std::move(group));
}

std::deque<Batcher::Group>::iterator Batcher::ready() {
  const auto now = Clock::now();
  return std::find_if(groups_.begin(), groups_.end(), [&](const Group& each) {
    return hurrying_ || each.rows >= options_.max_batch || each.jobs.front()->key.empty() ||
           now >= each.jobs.front()->arrived + options_.max_delay;
  });
}

void Batcher::work() {
  set_threads(options_.threads);  // LibTorch keeps the number per thread
  std::unique_lock lock(mutex_);
  for (;;) {
    // Requests first: they may complete the groups.
    if (!prepares_.empty()) {
      const Prepare prepare = std::move(prepares_.front());
      prepares_.pop_front();
      lock.unlock();
      std::unique_ptr<Job> job = prepare();
      lock.lock();
      if (job) {
        add(std::move(job));
      } else {
        --waiting_;
      }
      continue;
    }
    const auto found = ready();
    if (found != groups_.end()) {
      Job::Jobs jobs = std::move(found->jobs);
      groups_.erase(found);
      waiting_ -= jobs.size();
      lock.unlock();
      jobs.front()->run(jobs);
      jobs.clear();
      lock.lock();
      continue;
    }
    if (ending_ && groups_.empty()) return;
    if (groups_.empty()) {
      changed_.wait(lock);
    } else {
      changed_.wait_until(lock, groups_.front().jobs.front()->arrived + options_.max_delay);
    }
  }
}

}  // namespace convship::serve
