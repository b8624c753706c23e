#include "bench_process.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "convship/error.h"

namespace convship::apps {
namespace {

using nlohmann::json;

[[noreturn]] void fail(const std::string& what, int error) {
  throw Error(ErrorCode::environment, "bench: " + what + " (" + std::strerror(error) + ")");
}

// The child of a spawn inherits the cores of the thread that spawns it.
class OnFirstCores {
 public:
  explicit OnFirstCores(int cores) {
    CPU_ZERO(&before_);
    known_ = sched_getaffinity(0, sizeof before_, &before_) == 0;
    cpu_set_t first;
    CPU_ZERO(&first);
    for (int cpu = 0; known_ && cpu < CPU_SETSIZE && cores > 0; ++cpu) {
      if (!CPU_ISSET(cpu, &before_)) continue;
      CPU_SET(cpu, &first);
      --cores;
    }
    if (known_) sched_setaffinity(0, sizeof first, &first);
  }
  ~OnFirstCores() {
    if (known_) sched_setaffinity(0, sizeof before_, &before_);
  }

 private:
  cpu_set_t before_;
  bool known_ = false;
};

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> environment_with(const std::string& accuracy) {
  constexpr const char* kName = "CONVSHIP_ACCURACY=";
  std::vector<std::string> variables;
  for (char** each = environ; *each != nullptr; ++each) {
    if (std::strncmp(*each, kName, std::strlen(kName)) != 0) variables.emplace_back(*each);
  }
  variables.push_back(kName + accuracy);
  return variables;
}

}  // namespace

BenchProcess::BenchProcess(const std::vector<std::string>& arguments,
                           const std::string& accuracy,
                           int cores) {
  std::array<int, 2> in{}, out{};
  if (pipe2(in.data(), O_CLOEXEC) != 0 || pipe2(out.data(), O_CLOEXEC) != 0) {
    fail("no pipe to a worker", errno);
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  std::vector<std::string> words{"convship-run"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables = environment_with(accuracy);
  int error = 0;
  {
    const OnFirstCores pinned(cores);
    error = posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, pointers(words).data(),
                        pointers(variables).data());
  }
  posix_spawn_file_actions_destroy(&actions);
  close(in[0]);
  close(out[1]);
  requests_ = fdopen(in[1], "w");
  answers_ = fdopen(out[0], "r");
  if (error != 0) fail("cannot start a worker", error);
  hello_ = answer();
}

BenchProcess::~BenchProcess() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);  // works on a stopped process too; there is nothing to save
    waitpid(pid_, nullptr, 0);
  }
  std::fclose(requests_);
  std::fclose(answers_);
}

json BenchProcess::ask(const std::string& line) {
  kill(pid_, SIGCONT);
  std::fputs((line + "\n").c_str(), requests_);
  std::fflush(requests_);  // a worker that has ended does not answer either
  return answer();
}

json BenchProcess::answer() {
  char* line = nullptr;
  std::size_t capacity = 0;
  const ssize_t length = getline(&line, &capacity, answers_);
  const std::string text(line, length > 0 ? static_cast<std::size_t>(length) : 0);
  std::free(line);
  if (length <= 0) {
    throw Error(ErrorCode::environment, "bench: a worker ended instead of answering");
  }
  kill(pid_, SIGSTOP);
  json found = json::parse(text);
  if (found.contains("error")) {
    throw Error(found["code"].get<ErrorCode>(), found["error"].get<std::string>());
  }
  return found;
}

double BenchProcess::peak_mib() const {
  std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
  for (std::string word; status >> word;) {
    double kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib / 1024;
  }
  return 0;
}

}  // namespace convship::apps
