// A stopwatch that load passes down: what each stage took.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "convship/model.h"

namespace convship::runtime {

class LoadTimes {
 public:
  // What happened since the last mark was `stage`.
  void mark(std::string stage) {
    const auto now = Clock::now();
    const std::chrono::duration<double, std::milli> passed = now - last_;
    stages_.push_back({std::move(stage), passed.count()});
    last_ = now;
  }
  const std::vector<LoadStage>& stages() const { return stages_; }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_ = Clock::now();
  std::vector<LoadStage> stages_;
};

}  // namespace convship::runtime
