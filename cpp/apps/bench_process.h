// A worker of the verb bench: this program once more, stopped (SIGSTOP) whenever
// it is not asked, so that threads that spin while they wait disturb nobody.
#pragma once

#include <sys/types.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace convship::apps {

class BenchProcess {
 public:
  // Starts on the first `cores` cores that this process may use, with `accuracy`
  // as the process-wide setting, and waits until the model is loaded.
  // Throws Error(environment) when the worker ends instead of answering.
  BenchProcess(const std::vector<std::string>& arguments, const std::string& accuracy, int cores);
  ~BenchProcess();
  BenchProcess(const BenchProcess&) = delete;
  BenchProcess& operator=(const BenchProcess&) = delete;

  const nlohmann::json& hello() const { return hello_; }  // what the worker said first
  nlohmann::json ask(const std::string& line);
  double peak_mib() const;  // largest resident memory so far

 private:
  nlohmann::json answer();

  pid_t pid_ = -1;
  std::FILE* requests_ = nullptr;
  std::FILE* answers_ = nullptr;
  nlohmann::json hello_;
};

}  // namespace convship::apps
