// The one exception type of the native runtime.
#pragma once

#include <stdexcept>
#include <string>

#include "convship/export.h"

namespace convship {

// What went wrong, by whose mistake. The values are the exit codes of convship-run.
enum class ErrorCode {
  usage = 2,        // a wrong argument
  model = 3,        // a damaged or wrong model file, a missing op
  image = 4,        // an image that cannot be decoded
  environment = 5,  // a missing file, a disk or memory limit
};

// One line: subject, rule, what was received, remedy if there is one.
class CONVSHIP_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace convship
