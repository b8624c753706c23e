#include "read_torchscript.h"

#include <torch/csrc/jit/serialization/import.h>

#include <istream>
#include <streambuf>

#include "log.h"

namespace convship::runtime {
namespace {

// A stream over the checked bytes, in place.
class MemoryBuffer : public std::streambuf {
 public:
  explicit MemoryBuffer(std::span<const std::byte> bytes) {
    auto* begin = const_cast<char*>(reinterpret_cast<const char*>(bytes.data()));
    setg(begin, begin, begin + bytes.size());
  }

 protected:
  pos_type seekoff(off_type offset, std::ios_base::seekdir from, std::ios_base::openmode) override {
    char* base = from == std::ios_base::beg   ? eback()
                 : from == std::ios_base::cur ? gptr()
                                              : egptr();
    if (offset < eback() - base || offset > egptr() - base) return pos_type(off_type(-1));
    setg(eback(), base + offset, egptr());
    return gptr() - eback();
  }
  pos_type seekpos(pos_type position, std::ios_base::openmode mode) override {
    return seekoff(position, std::ios_base::beg, mode);
  }
};

}  // namespace

torch::jit::Module read_torchscript(std::span<const std::byte> bytes) {
  MemoryBuffer buffer(bytes);
  std::istream stream(&buffer);
  torch::jit::Module module = torch::jit::load(stream, at::kCPU);
  module.eval();
  take_over_prints();
  return module;
}

}  // namespace convship::runtime
