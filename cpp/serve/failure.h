// A request that cannot be answered, and the status that says so.
#pragma once

#include <stdexcept>
#include <string>

namespace convship::serve {

class Failure : public std::runtime_error {
 public:
  Failure(int status, const std::string& message) : std::runtime_error(message), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

}  // namespace convship::serve
