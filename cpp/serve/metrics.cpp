#include "serve/metrics.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "convship/model.h"

namespace convship::serve {
namespace {

std::string number(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return {text, end};
}

std::string number(std::uint64_t value) { return std::to_string(value); }

std::string escaped(const std::string& value) {
  std::string text;
  for (const char c : value) {
    if (c == '\n') {
      text += "\\n";
      continue;
    }
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

std::string label(const char* name, const std::string& value) {
  return std::string(name) + "=\"" + escaped(value) + "\"";
}

void describe(std::string& out, const char* name, const char* type, const char* help) {
  out += std::string("# HELP ") + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
}

void sample(std::string& out,
            const std::string& name,
            const std::string& labels,
            const std::string& value) {
  out += name;
  if (!labels.empty()) out += "{" + labels + "}";
  out += " " + value + "\n";
}

std::vector<double> seconds() {
  return {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
          0.05,   0.1,     0.25,   0.5,   1,      2.5,   5,    10};
}

std::vector<double> rows() { return {1, 2, 4, 8, 16, 32, 64, 128, 256}; }

// What client libraries of Prometheus tell of their process.
void write_process(std::string& out) {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t total = 0, resident = 0;
  statm >> total >> resident;
  describe(out, "process_resident_memory_bytes", "gauge", "Resident memory.");
  sample(out, "process_resident_memory_bytes", "",
         number(resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE))));

  std::timespec cpu{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
  describe(out, "process_cpu_seconds_total", "counter", "CPU time, user and system.");
  sample(out, "process_cpu_seconds_total", "",
         number(static_cast<double>(cpu.tv_sec) + static_cast<double>(cpu.tv_nsec) * 1e-9));

  std::error_code error;
  std::uint64_t files = 0;
  for ([[maybe_unused]] const auto& each :
       std::filesystem::directory_iterator("/proc/self/fd", error)) {
    ++files;
  }
  describe(out, "process_open_fds", "gauge", "Open file descriptors.");
  sample(out, "process_open_fds", "", number(files));
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

void Histogram::observe(double value) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  const std::lock_guard lock(mutex_);
  ++counts_[static_cast<std::size_t>(bucket)];
  sum_ += value;
}

void Histogram::write(std::string& out, const std::string& name, const std::string& labels) const {
  const std::lock_guard lock(mutex_);
  const std::string prefix = labels.empty() ? "" : labels + ",";
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    below += counts_[i];
    const std::string bound = i < bounds_.size() ? number(bounds_[i]) : "+Inf";
    sample(out, name + "_bucket", prefix + label("le", bound), number(below));
  }
  sample(out, name + "_sum", labels, number(sum_));
  sample(out, name + "_count", labels, number(below));
}

ModelMetrics::ModelMetrics()
    : request_seconds(seconds()),
      queue_seconds(seconds()),
      inference_seconds(seconds()),
      batch_rows(rows()) {}

Metrics::Metrics(const std::vector<std::string>& models) {
  for (const std::string& each : models) models_.try_emplace(each);
}

void Metrics::count_request(const std::string& model, int status) {
  const std::lock_guard lock(mutex_);
  ++requests_[{model, status}];
}

void Metrics::count_rejection(Rejection why) { ++rejections_.at(static_cast<std::size_t>(why)); }

std::string Metrics::text(std::size_t queue_depth, std::uint64_t dropped_log_lines) const {
  std::string out;
  describe(out, "convship_requests_total", "counter",
           "Replies by model (empty: none) and HTTP status.");
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, count] : requests_) {
      sample(out, "convship_requests_total",
             label("model", key.first) + "," + label("code", std::to_string(key.second)),
             number(count));
    }
  }
  describe(out, "convship_rejected_total", "counter", "Refused without being run, by reason.");
  for (std::size_t i = 0; i < kRejections.size(); ++i) {
    sample(out, "convship_rejected_total", label("reason", kRejections[i]),
           number(rejections_[i].load()));
  }

  const auto histogram = [&](const char* name, const char* help, auto member) {
    describe(out, name, "histogram", help);
    for (const auto& [model, figures] : models_) {
      (figures.*member).write(out, name, label("model", model));
    }
  };
  histogram("convship_request_duration_seconds",
            "From the last byte of a request to the first of its reply.",
            &ModelMetrics::request_seconds);
  histogram("convship_queue_duration_seconds", "Of that, until the call that answered it began.",
            &ModelMetrics::queue_seconds);
  histogram("convship_inference_duration_seconds", "Of a call of the model.",
            &ModelMetrics::inference_seconds);
  histogram("convship_batch_size", "Rows of a call of the model.", &ModelMetrics::batch_rows);

  const auto gauge = [&](const char* name, const char* help, std::uint64_t value) {
    describe(out, name, "gauge", help);
    sample(out, name, "", number(value));
  };
  gauge("convship_queue_depth", "Requests that wait for their turn.", queue_depth);
  gauge("convship_connections", "Open connections.",
        static_cast<std::uint64_t>(connections.load()));
  gauge("convship_buffered_bytes", "Bodies of requests in memory.",
        static_cast<std::uint64_t>(buffered_bytes.load()));
  describe(out, "convship_log_lines_dropped_total", "counter",
           "Lines that the reader of the log did not take in time.");
  sample(out, "convship_log_lines_dropped_total", "", number(dropped_log_lines));

  static const Build built = build();
  describe(out, "convship_build_info", "gauge", "Versions, and the instruction set in use.");
  sample(out, "convship_build_info",
         label("version", built.convship) + "," + label("torch", built.torch) + "," +
             label("isa", built.isa),
         "1");
  write_process(out);
  return out;
}

}  // namespace convship::serve
