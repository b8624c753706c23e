#include "guard.h"

#include <c10/util/Exception.h>

#include <string_view>

namespace convship::runtime {

std::string reason_of(const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  std::string text(of_torch != nullptr ? of_torch->what_without_backtrace() : error.what());
  const std::size_t trace = text.find("Exception raised from");
  if (trace != std::string::npos) text.resize(trace);
  // The interpreter puts a listing of the code first and the reason last.
  const std::size_t reason = text.rfind("Error: ");
  if (text.find("TorchScript interpreter") != std::string::npos && reason != std::string::npos) {
    text.erase(0, reason + std::string_view("Error: ").size());
  }
  std::string line;
  for (const char c : text) {
    if (c == '\n' && line.size() > 400) break;
    const bool blank = c == '\n' || c == ' ';
    if (!blank) {
      line += c;
    } else if (!line.empty() && line.back() != ' ') {
      line += ' ';
    }
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

}  // namespace convship::runtime
