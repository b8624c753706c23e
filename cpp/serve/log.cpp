#include "serve/log.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <ctime>

namespace convship::serve {
namespace {

constexpr std::size_t kMostWaiting = std::size_t{1} << 20;  // bytes

// RFC 3339, UTC, with milliseconds.
std::string now() {
  const auto time = std::chrono::system_clock::now();
  const auto since = time.time_since_epoch();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(since).count() % 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char date[32], text[40];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text, sizeof text, "%s.%03dZ", date, static_cast<int>(ms));
  return text;
}

void write_all(const std::string& text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t wrote = ::write(STDERR_FILENO, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return;  // nobody reads: there is nowhere to say so
    done += static_cast<std::size_t>(wrote);
  }
}

}  // namespace

Log::Log() : thread_([this] { run(); }) {}

Log::~Log() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Log::write(const char* level, const char* event, nlohmann::ordered_json fields) {
  nlohmann::ordered_json line = {{"time", now()}, {"level", level}, {"event", event}};
  if (fields.is_object()) line.update(fields);
  const std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() + text.size() > kMostWaiting) {
      ++dropped_;
      return;
    }
    waiting_ += text;
    waiting_ += '\n';
  }
  changed_.notify_all();
}

std::uint64_t Log::dropped() const {
  const std::lock_guard lock(mutex_);
  return dropped_;
}

void Log::flush() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::seconds(1), [&] { return waiting_.empty() && !writing_; });
}

void Log::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ending_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    std::string text;
    text.swap(waiting_);
    writing_ = true;
    lock.unlock();
    write_all(text);
    lock.lock();
    writing_ = false;
    changed_.notify_all();
  }
}

}  // namespace convship::serve
