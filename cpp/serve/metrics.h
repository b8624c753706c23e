// Figures in Prometheus' text format. (Debian's prometheus-cpp would bring curl
// and a second web server along.)
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace convship::serve {

class Histogram {
 public:
  // `bounds` ascend; a last bucket takes what is above them.
  explicit Histogram(std::vector<double> bounds);
  void observe(double value);
  // The lines of one series; `labels` like `model="lenet"`, or empty.
  void write(std::string& out, const std::string& name, const std::string& labels) const;

 private:
  std::vector<double> bounds_;
  mutable std::mutex mutex_;
  std::vector<std::uint64_t> counts_;
  double sum_ = 0;
};

// What a model's requests took.
struct ModelMetrics {
  Histogram request_seconds;
  Histogram queue_seconds;
  Histogram inference_seconds;  // of a call, which may answer several requests
  Histogram batch_rows;         // of a call
  ModelMetrics();
};

// Why a request was refused without being run.
enum class Rejection { queue_full, memory, body_size, header_size, timeout, connections, key };
inline constexpr std::array<const char*, 7> kRejections = {
    "queue_full", "memory", "body_size", "header_size", "timeout", "connections", "api_key"};

class Metrics {
 public:
  explicit Metrics(const std::vector<std::string>& models);

  ModelMetrics& of(const std::string& model) { return models_.at(model); }
  void count_request(const std::string& model, int status);
  void count_rejection(Rejection why);

  std::atomic<std::int64_t> connections = 0;
  std::atomic<std::int64_t> buffered_bytes = 0;

  // `queue_depth` and `dropped_log_lines` are kept elsewhere.
  std::string text(std::size_t queue_depth, std::uint64_t dropped_log_lines) const;

 private:
  std::map<std::string, ModelMetrics> models_;
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, std::uint64_t> requests_;
  std::array<std::atomic<std::uint64_t>, kRejections.size()> rejections_{};
};

}  // namespace convship::serve
