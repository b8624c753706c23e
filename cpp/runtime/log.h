// Where a call's messages go: to the log of the model that is being called.
// LibTorch keeps one print handler per process and one warning handler per
// thread; both lead here.
#pragma once

#include <c10/util/Exception.h>

#include <string>

#include "convship/model.h"

namespace convship::runtime {

// While it lives, this thread's messages go to `log`, which must outlive it.
// An empty log swallows them: the library itself never prints.
class LogScope {
 public:
  explicit LogScope(const Log& log);
  ~LogScope();
  LogScope(const LogScope&) = delete;
  LogScope& operator=(const LogScope&) = delete;

 private:
  class Warnings : public c10::WarningHandler {
   public:
    void process(const c10::Warning& warning) override;
  };

  const Log* outer_;
  Warnings warnings_;
  c10::WarningUtils::WarningHandlerGuard guard_;
};

// Dropped outside of a LogScope.
void log(LogLevel level, const std::string& message);

// What models print goes to log() from now on. A Python process has its own
// handler, which is left alone.
void take_over_prints();

}  // namespace convship::runtime
