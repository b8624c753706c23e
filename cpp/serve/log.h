// Lines of JSON on stderr, written by a thread of their own: a reader that
// stalls must not stall the server. What it does not take in time is dropped,
// and counted.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

namespace convship::serve {

class Log {
 public:
  Log();
  ~Log();  // writes what is left
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // `level` is "info", "warning" or "error"; `fields` is an object.
  void write(const char* level, const char* event, nlohmann::ordered_json fields = {});
  std::uint64_t dropped() const;
  // Returns when everything is written, or nobody has read for a second.
  void flush();

 private:
  void run();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string waiting_;
  bool writing_ = false;
  bool ending_ = false;
  std::uint64_t dropped_ = 0;
  std::thread thread_;
};

}  // namespace convship::serve
