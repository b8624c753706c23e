// Many thousand damaged and hostile model files, made from the models that are
// given: each must be refused, with one of the reasons below, before LibTorch
// reads a byte of it, and without taking memory.
//
//   mutated_files SHIPPED.pt PLAIN.pt [--random N] [--seed S]
//
// Prints how many of which kind were refused for which reason. Whether LibTorch
// was reached is counted, not guessed: the linker puts our function in the place
// of torch::jit::load.
#include <caffe2/serialize/inline_container.h>
#include <caffe2/serialize/read_adapter_interface.h>
#include <malloc.h>
#include <sys/stat.h>
#include <torch/csrc/jit/serialization/import.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <set>

#include "convship/model.h"
#include "hostile_files.h"
#include "runtime/check.h"
#include "runtime/zip_archive.h"

std::atomic<int> libtorch_loads = 0;

torch::jit::Module real_load(std::istream&,
                             std::optional<c10::Device>,
                             bool) asm("__real__ZN5torch3jit4loadERSiSt8optionalIN3c106DeviceEEb");
torch::jit::Module counted_load(std::istream&, std::optional<c10::Device>, bool) asm(
    "__wrap__ZN5torch3jit4loadERSiSt8optionalIN3c106DeviceEEb");

torch::jit::Module counted_load(std::istream& in, std::optional<c10::Device> device, bool extra) {
  ++libtorch_loads;
  return real_load(in, device, extra);
}

using namespace convship;
using namespace convship::testing;

namespace {

using Bytes = std::vector<std::byte>;

// What a refusal may say. A message that is none of these is a defect.
constexpr std::pair<std::string_view, std::string_view> kReasons[] = {
    {"SHA-256 differs", "digest"},
    {"the file is damaged or truncated", "structure (libzip)"},
    {"the file is damaged, or made to mislead", "layout"},
    {"its comment is not at its end", "layout"},
    {"the file is damaged: member", "structure (libzip)"},
    {"lost its digest", "lost digest"},
    {"plain TorchScript file without", "plain, not allowed"},
    {"archives without a comment", "comment of a plain file"},
    {"unpack to far more", "bomb"},
    {"is not one of a model", "name"},
    {"a model has 1 to", "number of members"},
    {"' is damaged; fetch", "checksum of a member"},
    {"must have at most", "size of a member"},
    {"the manifest cannot be read", "manifest"},
    {"the manifest has format", "manifest format"},
    {"the manifest is missing", "manifest missing"},
    {"the compiled network is missing", "compiled network missing"},
    {"needs the operator", "operator"},
    {"is no number; export", "torch's version"},
    {"was written by ", "torch's version"},
    {"big-endian", "byte order"},
    {"the file is empty", "empty"},
    {"not a convship model", "no archive"},
    {"is a regular file", "no regular file"},
    {"no such model file", "no file"},
    {"this looks like", "another kind"},
    {"this is a", "another kind"},
};

std::string_view reason_of(std::string_view message) {
  for (const auto& [part, reason] : kReasons) {
    if (message.find(part) != std::string_view::npos) return reason;
  }
  return {};
}

// Names to contents, as LibTorch's own reader sees them.
using Contents = std::map<std::string, std::string>;

class MemoryReader : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit MemoryReader(const Bytes& bytes) : bytes_(bytes) {}
  std::size_t size() const override { return bytes_.size(); }
  std::size_t read(std::uint64_t at, void* to, std::size_t count, const char*) const override {
    if (at >= bytes_.size()) return 0;
    count = std::min<std::size_t>(count, bytes_.size() - at);
    std::memcpy(to, bytes_.data() + at, count);
    return count;
  }

 private:
  const Bytes& bytes_;
};

Contents contents_for_libtorch(const Bytes& bytes) {
  caffe2::serialize::PyTorchStreamReader reader(std::make_shared<MemoryReader>(bytes));
  Contents contents;
  for (const std::string& name : reader.getAllRecords()) {
    const auto [data, size] = reader.getRecord(name);
    contents[name].assign(static_cast<const char*>(data.get()), size);
  }
  return contents;
}

struct Counts {
  std::map<std::string, std::map<std::string, int>> refused;  // by kind, then reason
  std::map<std::string, int> harmless;
  int total = 0;
  int loaded = 0;  // through Model::load, from a file
  int failures = 0;
};

void complain(Counts& counts, const std::string& kind, const std::string& what) {
  if (++counts.failures <= 20)
    std::fprintf(stderr, "FAILED: %s: %s\n", kind.c_str(), what.substr(0, what.find('\n')).c_str());
}

void count_refusal(Counts& counts,
                   const std::string& kind,
                   const Error& error,
                   const std::string& what) {
  const std::string_view reason = reason_of(error.what());
  if (reason.empty() || error.code() != ErrorCode::model) {
    complain(counts, kind, what + ": unexpected message: " + error.what());
  }
  ++counts.refused[kind][std::string(reason)];
}

class Judge {
 public:
  Judge(Contents original, std::string folder)
      : original_(std::move(original)), path_(std::move(folder) + "/file.pt") {}

  // What damage leaves intact (a date, padding) changes nothing: with
  // `may_be_harmless` a file may pass that holds, to LibTorch's reader too, the
  // same members as the original.
  void judge(const std::string& kind,
             const Bytes& bytes,
             bool allow_plain,
             bool may_be_harmless,
             const std::string& what) {
    ++counts.total;
    try {
      runtime::check_file(bytes, "file", {allow_plain, {}});
      if (may_be_harmless && contents_for_libtorch(bytes) == original_) {
        ++counts.harmless[kind];
        return;
      }
      complain(counts, kind, what + ": accepted");
    } catch (const Error& error) {
      count_refusal(counts, kind, error, what);
      if (counts.total % kSample == 0) load(kind, bytes, allow_plain, what);
    } catch (const std::exception& error) {
      complain(counts, kind, what + ": " + error.what());
    }
  }

  // As a program would, from a real file.
  void load(const std::string& kind,
            const Bytes& bytes,
            bool allow_plain,
            const std::string& what) {
    std::ofstream out(path_, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
    out.close();
    load_path(kind, path_, allow_plain, what);
  }

  void load_path(const std::string& kind,
                 const std::string& path,
                 bool allow_plain,
                 const std::string& what) {
    ++counts.loaded;
    Options options;
    options.allow_plain = allow_plain;
    const int before = libtorch_loads;
    try {
      Model::load(path, options);
      complain(counts, kind, what + ": loaded");
    } catch (const Error& error) {
      count_refusal(counts, kind + " (Model::load)", error, what);
    }
    if (libtorch_loads != before) complain(counts, kind, what + ": reached LibTorch");
  }

  Counts counts;

 private:
  static constexpr int kSample = 400;
  Contents original_;
  std::string path_;
};

Bytes read(const char* path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  const auto span = std::as_bytes(std::span(text));
  return {span.begin(), span.end()};
}

Bytes bytes_of(const std::string& text) {
  const auto span = std::as_bytes(std::span(text));
  return {span.begin(), span.end()};
}

std::uint64_t little_endian(const Bytes& bytes, std::size_t at, int count) {
  std::uint64_t value = 0;
  for (int i = count; i-- > 0;)
    value = value << 8 | std::to_integer<std::uint64_t>(bytes[at + static_cast<std::size_t>(i)]);
  return value;
}

// Positions of all bytes that are not the members' data, of a sound archive.
std::vector<std::size_t> header_bytes(const Bytes& bytes) {
  std::size_t end = bytes.size() - 22;
  while (little_endian(bytes, end, 4) != 0x06054b50) --end;
  std::vector<std::size_t> positions;
  const auto add = [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; ++i) positions.push_back(i);
  };
  std::size_t at = little_endian(bytes, end + 16, 4);
  add(at, bytes.size());
  while (little_endian(bytes, at, 4) == 0x02014b50) {
    const std::size_t local = little_endian(bytes, at + 42, 4);
    add(local,
        local + 30 + little_endian(bytes, local + 26, 2) + little_endian(bytes, local + 28, 2));
    at += 46 + little_endian(bytes, at + 28, 2) + little_endian(bytes, at + 30, 2) +
          little_endian(bytes, at + 32, 2);
  }
  return positions;
}

struct Settings {
  std::string kind;
  bool allow_plain = false;
  bool may_be_harmless = false;
  std::size_t header_bits = 65'536;
  int random_bits = 30'000;
};

void truncate(Judge& judge, const Bytes& good, const Settings& settings) {
  std::set<std::size_t> sizes;
  for (std::size_t i = 0; i < std::min<std::size_t>(4096, good.size()); ++i) {
    sizes.insert(i);
    sizes.insert(good.size() - 1 - i);
  }
  for (std::size_t size = 0; size < good.size(); size += 4096) sizes.insert(size);
  for (const std::size_t size : sizes) {
    judge.judge(settings.kind + ", cut",
                {good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)},
                settings.allow_plain, false, "cut to " + std::to_string(size));
  }
}

void flip(
    Judge& judge, Bytes& bytes, std::size_t bit, const char* where, const Settings& settings) {
  const std::byte mask = std::byte{1} << static_cast<int>(bit % 8);
  bytes[bit / 8] ^= mask;
  judge.judge(settings.kind + ", bit of " + where, bytes, settings.allow_plain,
              settings.may_be_harmless, "bit " + std::to_string(bit));
  bytes[bit / 8] ^= mask;
}

void flip_bits(Judge& judge, Bytes bytes, const Settings& settings, std::mt19937_64& random) {
  const auto headers = header_bytes(bytes);
  const std::size_t step = std::max<std::size_t>(1, headers.size() * 8 / settings.header_bits);
  for (std::size_t i = 0; i < headers.size() * 8; i += step) {
    flip(judge, bytes, headers[i / 8] * 8 + i % 8, "a header", settings);
  }
  for (int i = 0; i < settings.random_bits; ++i) {
    flip(judge, bytes, random() % (bytes.size() * 8), "the file", settings);
  }
}

void damage(Judge& judge, const Bytes& good, const Settings& settings, std::mt19937_64& random) {
  truncate(judge, good, settings);
  flip_bits(judge, good, settings, random);
}

void no_files(Judge& judge, const std::string& folder) {
  mkfifo((folder + "/pipe").c_str(), 0600);
  judge.load_path("no file", folder, true, "a folder");
  judge.load_path("no file", folder + "/pipe", true, "a pipe");
  judge.load_path("no file", "/dev/zero", true, "a device without end");
  judge.load_path("no file", folder + "/missing.pt", true, "nothing");
  judge.load_path("no file", folder + "/pipe/x.pt", true, "below what is no folder");
  judge.load_path("no file", "/proc/self/status", true, "a file of no size");
  judge.counts.total += 6;
}

void hostile(Judge& judge, const Bytes& shipped) {
  for (const HostileFile& file : hostile_files(shipped)) {
    ++judge.counts.total;
    judge.load("made by hand", bytes_of(file.bytes), file.allow_plain, file.what);
  }
}

// A sound file must load, or every refusal below would prove nothing.
bool loads(const Bytes& bytes, bool allow_plain) {
  const int before = libtorch_loads;
  Options options;
  options.allow_plain = allow_plain;
  Model::load(bytes, options);
  return libtorch_loads == before + 1;
}

long peak_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word == "VmHWM:") {
      long kib = 0;
      status >> kib;
      return kib;
    }
  }
  return 0;
}

void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

int report(const Counts& counts, long peak, double seconds) {
  int refused = 0, harmless = 0;
  for (const auto& [kind, reasons] : counts.refused) {
    int sum = 0;
    std::string text;
    for (const auto& [reason, count] : reasons) {
      sum += count;
      text += (text.empty() ? "" : ", ") + reason + " " + std::to_string(count);
    }
    const auto unharmed = counts.harmless.find(kind);
    std::printf("%-36s %7d refused: %s", kind.c_str(), sum, text.c_str());
    if (unharmed != counts.harmless.end()) {
      std::printf("; %d without effect", unharmed->second);
      harmless += unharmed->second;
    }
    std::printf("\n");
    if (kind.find("Model::load") == std::string::npos) refused += sum;
  }
  std::printf(
      "%d files, %d refused by the check, %d with all contents intact, %d loaded as a program "
      "does; %d reached LibTorch; peak memory +%.1f MiB; %.0f s\n",
      counts.total, refused, harmless, counts.loaded, libtorch_loads.load() - 4,
      static_cast<double>(peak) / 1024, seconds);
  if (peak > 64 * 1024) {
    std::fprintf(stderr, "FAILED: refusing must not take 64 MiB\n");
    return 1;
  }
  return counts.failures == 0 && counts.total > 1000 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  int random_bits = 30'000;
  std::uint64_t seed = 1;
  for (int i = 3; i + 1 < argc; i += 2) {
    if (argv[i] == std::string_view("--random")) random_bits = std::atoi(argv[i + 1]);
    if (argv[i] == std::string_view("--seed")) seed = std::strtoull(argv[i + 1], nullptr, 10);
  }
  if (argc < 3) return 2;
  // Copies of files would each be mapped, zeroed and unmapped by the kernel.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  std::string folder = "/tmp/mutated_files_XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return 5;
  const Bytes shipped = read(argv[1]), plain = read(argv[2]);
  if (!loads(shipped, false) || !loads(plain, true) ||
      !loads(bytes_of(rewritten(shipped, false)), false) ||
      !loads(bytes_of(rewritten(shipped, true)), true)) {
    std::fprintf(stderr, "FAILED: a sound file does not load\n");
    return 1;
  }
  std::mt19937_64 random(seed);
  const auto begin = std::chrono::steady_clock::now();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  const long before = (reset_peak(), peak_kib());

  // As if it were plain: the digest must not be lost on the way.
  Judge judge(contents_for_libtorch(plain), folder);
  damage(judge, shipped, {"shipped", true, false, 65'536, random_bits}, random);
  Bytes stripped(shipped.begin(), shipped.end() - 81);
  stripped[stripped.size() - 2] = stripped[stripped.size() - 1] = std::byte{0};
  damage(judge, stripped, {"digest stripped", true, false, 2'000, 1'000}, random);
  damage(judge, plain, {"plain, not allowed", false, false, 2'000, 1'000}, random);
  damage(judge, plain, {"plain, allowed", true, true, 65'536, random_bits / 3}, random);
  no_files(judge, folder);
  const long peak = peak_kib() - before;
  // Apart, because making a bomb takes memory too.
  hostile(judge, shipped);
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
  std::filesystem::remove_all(folder);
  return report(judge.counts, peak, passed.count());
}
