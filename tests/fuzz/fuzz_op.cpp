// The convolution kernels of every instruction set against the formula, in all
// element types: the input is the sizes, layouts and values' seed of one case.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "convolution_check.h"

namespace {

using namespace convolution_test;

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  // 0 when the input is at its end.
  std::int64_t draw(std::int64_t least, std::int64_t most) {
    const std::int64_t value = at_ < size_ ? data_[at_++] : 0;
    return least + value % (most - least + 1);
  }
  Pair draw_pair(std::int64_t least, std::int64_t most) {
    const std::int64_t h = draw(least, most);
    return {h, draw(least, most)};
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
  std::size_t at_ = 0;
};

// False where torch refuses such sizes.
bool read_geometry(Input& in, Geometry& g) {
  g.n = in.draw(0, 3);
  g.groups = in.draw(1, 8);
  g.c_in = g.groups * in.draw(1, 40);
  g.c_out = g.groups * in.draw(1, 40);
  g.image = in.draw_pair(1, 80);
  g.kernel = in.draw_pair(1, 7);
  g.stride = in.draw_pair(1, 5);
  g.dilation = in.draw_pair(1, 4);
  g.padding = {in.draw(0, g.kernel.h), in.draw(0, g.kernel.w)};
  g.pool_size = in.draw_pair(1, 4);
  g.pool_stride = in.draw_pair(1, 4);
  g.pool_padding = {in.draw(0, g.pool_size.h / 2), in.draw(0, g.pool_size.w / 2)};
  const bool ceil_mode = in.draw(0, 1) == 1;
  Random random(0);
  shrink(random, g, ceil_mode, /*most_macs=*/50'000);
  return complete(g, ceil_mode);
}

bool read_case(Input& in, Case& c) {
  c.name = "fuzz";
  if (!read_geometry(in, c.g)) return false;
  const Geometry& g = c.g;
  c.number = static_cast<std::uint64_t>(in.draw(0, 255));
  c.bias = in.draw(0, 1) == 1;
  c.relu = in.draw(0, 1) == 1;
  c.index = static_cast<Index>(in.draw(0, 2));
  if (c.index == Index::narrow && g.pool_size.h * g.pool_size.w > 256) return false;
  const bool pools =
      g.pool_size.h * g.pool_size.w > 1 || g.pool_stride.h > 1 || g.pool_stride.w > 1;
  c.residual = in.draw(0, 1) == 1 && !pools && c.index == Index::none;
  c.in = static_cast<Layout>(in.draw(0, kInputLayouts - 1));
  c.out = static_cast<Layout>(in.draw(0, kOutputLayouts - 1));
  c.expanded = static_cast<int>(in.draw(0, 3));
  c.flush_end = in.draw(0, 1) == 1;
  c.integers = in.draw(0, 1) == 1;
  c.magnitude = c.index != Index::none && in.draw(0, 1) == 1 ? 2 : 32;
  c.exponent = static_cast<int>(in.draw(0, 60)) - 30;
  return true;
}

template <typename T>
void check(const Case& c) {
  static Checker<T> checker;
  const std::string wrong = checker.check(c);
  if (wrong.empty()) return;
  std::fprintf(stderr, "%s\n", wrong.c_str());
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  const std::int64_t type = in.draw(0, 2);
  Case c;
  if (!read_case(in, c)) return 0;
  if (type == 0) check<float>(c);
  if (type == 1) check<double>(c);
  if (type == 2) check<convship::kernels::BFloat16>(c);
  return 0;
}
