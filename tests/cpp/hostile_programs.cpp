// Sound archives that hold a damaged program. Whoever changes a model can write
// its digest anew, so the checks before LibTorch pass these, and LibTorch reads
// them: here each in a child process with limits on memory and time, as a server
// would that must survive strangers' models.
//
//   hostile_programs SHIPPED.pt [--count N] [--seed S]
//
// Prints what became of them. A child may refuse its file with a convship::Error,
// load it and run it (many changes are harmless), or die inside LibTorch; what it
// may not do is to throw anything else, or to take the parent with it.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <random>

#include "convship/model.h"
#include "hostile_files.h"
#include "hostile_zip.h"
#include "shipped.h"

using namespace convship;
using namespace convship::testing;

namespace {

using Random = std::mt19937_64;

constexpr rlim_t kMemory = rlim_t{2} << 30;
constexpr unsigned kSeconds = 10;

// What a child answers with its exit code.
enum Outcome { ran = 0, refused_at_load = 10, refused_at_run = 11, wrong_exception = 12 };

std::size_t below(Random& random, std::size_t limit) { return random() % limit; }

// One change of a member, of a kind that parsers are known to trip over.
void change(std::string& data, Random& random) {
  if (data.empty()) return;
  const std::size_t at = below(random, data.size());
  const std::size_t length = 1 + below(random, std::min<std::size_t>(16, data.size() - at));
  switch (below(random, 6)) {
    case 0:  // a bit
      data[at] = static_cast<char>(data[at] ^ (1 << below(random, 8)));
      break;
    case 1:  // a byte
      data[at] = static_cast<char>(random());
      break;
    case 2:  // a number of four bytes becomes an extreme
      for (std::size_t i = at; i < std::min(at + 4, data.size()); ++i) {
        data[i] = static_cast<char>(below(random, 2) == 0 ? 0xff : 0x7f);
      }
      break;
    case 3:
      data.erase(at, length);
      break;
    case 4:
      data.insert(at, data.substr(below(random, data.size()), length));
      break;
    default:  // a digit: sizes and constants of the code
      for (std::size_t i = at; i < data.size(); ++i) {
        if (data[i] >= '0' && data[i] <= '9') {
          data[i] = static_cast<char>('0' + below(random, 10));
          break;
        }
      }
  }
}

// Code and pickles, which LibTorch interprets; weights and goldens only now and then.
bool is_interpreted(const ZipMember& member) {
  return member.name.find("/code/") != std::string::npos || member.name.ends_with(".pkl");
}

std::string hostile(std::vector<ZipMember> members, Random& random) {
  std::vector<ZipMember*> interpreted, rest;
  for (ZipMember& member : members) {
    (is_interpreted(member) ? interpreted : rest).push_back(&member);
  }
  const std::size_t changes = 1 + below(random, 3);
  for (std::size_t i = 0; i < changes; ++i) {
    auto& from = rest.empty() || below(random, 8) != 0 ? interpreted : rest;
    change(from[below(random, from.size())]->data, random);
  }
  return with_digest(zip_of(members));
}

void limit(int resource, rlim_t value) {
  const rlimit both{value, value};
  setrlimit(static_cast<__rlimit_resource_t>(resource), &both);
}

Outcome load_and_run(const std::string& bytes) {
  Options options;
  options.threads = 1;
  try {
    const Model model = Model::load(std::as_bytes(std::span(bytes)), options);
    try {
      const std::vector<std::uint8_t> gray(32 * 32, 127);
      model.predict_pixels({gray.data(), 32, 32, PixelFormat::gray, 0}, 1);
      return ran;
    } catch (const Error&) {
      return refused_at_run;
    }
  } catch (const Error&) {
    return refused_at_load;
  } catch (...) {
    return wrong_exception;
  }
}

std::string describe(int status) {
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    return signal == SIGALRM ? std::string("out of time")
                             : std::string("died of SIG") + sigabbrev_np(signal);
  }
  switch (WEXITSTATUS(status)) {
    case ran:
      return "loaded and ran";
    case refused_at_load:
      return "refused at load";
    case refused_at_run:
      return "refused at run";
    case wrong_exception:
      return "threw what is no convship::Error";
    default:
      return "ended with code " + std::to_string(WEXITSTATUS(status));
  }
}

// No thread of OpenMP's pool exists yet in this process: children may fork.
int in_child(const std::string& bytes) {
  const pid_t child = fork();
  if (child == 0) {
    limit(RLIMIT_AS, kMemory);
    limit(RLIMIT_CORE, 0);
    alarm(kSeconds);
    std::freopen("/dev/null", "w", stderr);
    _exit(load_and_run(bytes));
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) {
    std::perror("hostile_programs");
    std::exit(5);
  }
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  int count = 300;
  std::uint64_t seed = 1;
  for (int i = 2; i + 1 < argc; i += 2) {
    if (argv[i] == std::string_view("--count")) count = std::atoi(argv[i + 1]);
    if (argv[i] == std::string_view("--seed")) seed = std::strtoull(argv[i + 1], nullptr, 10);
  }
  if (argc < 2) return 2;
  std::ifstream in(argv[1], std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  const auto members = members_of(std::as_bytes(std::span(text)));
  if (in_child(with_digest(zip_of(members))) != 0) {
    std::fprintf(stderr, "FAILED: the file does not load and run before it is changed\n");
    return 1;
  }
  std::map<std::string, int> outcomes;
  for (int i = 0; i < count; ++i) {
    Random random(seed * 1'000'003 + static_cast<std::uint64_t>(i));
    ++outcomes[describe(in_child(hostile(members, random)))];
  }
  std::printf("%d hostile programs, seed %llu:", count, static_cast<unsigned long long>(seed));
  const char* separator = " ";
  for (const auto& [outcome, times] : outcomes) {
    std::printf("%s%s %d", separator, outcome.c_str(), times);
    separator = ", ";
  }
  std::printf("; the parent lives\n");
  return outcomes.contains(describe(wrong_exception << 8)) ? 1 : 0;
}
