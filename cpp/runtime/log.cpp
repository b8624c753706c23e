#include "log.h"

#include <torch/csrc/jit/runtime/print_handler.h>

namespace convship::runtime {
namespace {

thread_local const Log* current = nullptr;

}  // namespace

void LogScope::Warnings::process(const c10::Warning& warning) {
  log(LogLevel::warning, "LibTorch: " + warning.msg());
}

LogScope::LogScope(const Log& log) : outer_(current), guard_(&warnings_) { current = &log; }
LogScope::~LogScope() { current = outer_; }

void log(LogLevel level, const std::string& message) {
  if (current != nullptr && *current) (*current)(level, message);
}

void take_over_prints() {
  if (torch::jit::getPrintHandler() != torch::jit::getDefaultPrintHandler()) return;
  torch::jit::setPrintHandler([](const std::string& text) {
    log(LogLevel::info, text.ends_with('\n') ? text.substr(0, text.size() - 1) : text);
  });
}

}  // namespace convship::runtime
