#include <ATen/ops/conv2d.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/relu.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "convship/isa.h"
#include "convship/ops.h"
#include "kernels/conv2d/plain.h"
#include "kernels/conv2d/pool_route.h"

namespace {

using namespace convship::kernels;
using namespace convship::kernels::conv2d;

// Splits the work as unevenly as two threads may, from real threads.
class TwoThreads final : public Parallel {
 public:
  int width() const override { return 2; }
  void run(int64_t count, int64_t /*grain*/, RangeBody body) const override {
    const int64_t cut = count / 3;
    std::thread other([&] { body(0, cut); });
    body(cut, count);
    other.join();
  }
};

// One output value, as the formula says, in 64-bit integers.
int64_t conv_value(const Geometry& g,
                   const std::vector<float>& x,
                   const std::vector<float>& w,
                   const std::vector<float>& b,
                   int64_t n,
                   int64_t o,
                   int64_t y,
                   int64_t z) {
  const int64_t channels = g.c_in / g.groups;
  const int64_t group = o / (g.c_out / g.groups);
  int64_t sum = static_cast<int64_t>(b[o]);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < g.kernel.h; ++i) {
      for (int64_t j = 0; j < g.kernel.w; ++j) {
        const int64_t row = y * g.stride.h - g.padding.h + i * g.dilation.h;
        const int64_t column = z * g.stride.w - g.padding.w + j * g.dilation.w;
        if (row < 0 || row >= g.image.h || column < 0 || column >= g.image.w) continue;
        const int64_t channel = group * channels + c;
        sum += static_cast<int64_t>(
            x[((n * g.c_in + channel) * g.image.h + row) * g.image.w + column] *
            w[((o * channels + c) * g.kernel.h + i) * g.kernel.w + j]);
      }
    }
  }
  return sum;
}

struct Winner {
  int64_t value;
  int64_t tap;
};

Winner pooled_value(const Geometry& g,
                    const std::vector<float>& x,
                    const std::vector<float>& w,
                    const std::vector<float>& b,
                    int64_t n,
                    int64_t o,
                    int64_t p,
                    int64_t q) {
  Winner winner{std::numeric_limits<int64_t>::min(), -1};
  for (int64_t i = 0; i < g.pool_size.h; ++i) {
    for (int64_t j = 0; j < g.pool_size.w; ++j) {
      const int64_t y = p * g.pool_stride.h - g.pool_padding.h + i;
      const int64_t z = q * g.pool_stride.w - g.pool_padding.w + j;
      if (y < 0 || y >= g.conv.h || z < 0 || z >= g.conv.w) continue;
      const int64_t value = std::max<int64_t>(0, conv_value(g, x, w, b, n, o, y, z));
      if (value > winner.value) winner = {value, i * g.pool_size.w + j};
    }
  }
  return winner;
}

std::vector<float> integers(int64_t count, std::mt19937& random) {
  std::uniform_int_distribution<int> any(-4, 4);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(any(random));
  return values;
}

Geometry random_geometry(std::mt19937& random) {
  const auto draw = [&](int64_t least, int64_t most) {
    return std::uniform_int_distribution<int64_t>(least, most)(random);
  };
  for (;;) {
    Geometry g{};
    g.n = draw(0, 3);
    g.groups = draw(1, 3);
    g.c_in = g.groups * draw(1, 3);
    g.c_out = g.groups * draw(1, 6);
    g.image = {draw(1, 14), draw(1, 40)};
    g.kernel = {draw(1, 4), draw(1, 4)};
    g.stride = {draw(1, 3), draw(1, 2)};
    g.padding = {draw(0, 3), draw(0, 3)};
    g.dilation = {draw(1, 2), draw(1, 2)};
    g.pool_size = {draw(1, 4), draw(1, 4)};
    g.pool_stride = {draw(1, 4), draw(1, 4)};
    g.pool_padding = {draw(0, g.pool_size.h / 2), draw(0, g.pool_size.w / 2)};
    g.conv = {(g.image.h + 2 * g.padding.h - g.dilation.h * (g.kernel.h - 1) - 1) / g.stride.h + 1,
              (g.image.w + 2 * g.padding.w - g.dilation.w * (g.kernel.w - 1) - 1) / g.stride.w + 1};
    if (g.image.h + 2 * g.padding.h <= g.dilation.h * (g.kernel.h - 1) ||
        g.image.w + 2 * g.padding.w <= g.dilation.w * (g.kernel.w - 1) ||
        g.conv.h + 2 * g.pool_padding.h < g.pool_size.h ||
        g.conv.w + 2 * g.pool_padding.w < g.pool_size.w) {
      continue;
    }
    g.pooled = {(g.conv.h + 2 * g.pool_padding.h - g.pool_size.h) / g.pool_stride.h + 1,
                (g.conv.w + 2 * g.pool_padding.w - g.pool_size.w) / g.pool_stride.w + 1};
    return g;
  }
}

}  // namespace

TEST_CASE_TEMPLATE("plain loop equals the formula on integers", Index, uint8_t, int32_t) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const Geometry g = random_geometry(random);
    const auto x = integers(g.n * g.c_in * g.image.h * g.image.w, random);
    const auto w = integers(g.c_out * g.c_in / g.groups * g.kernel.h * g.kernel.w, random);
    const auto b = integers(g.c_out, random);
    const int64_t count = g.n * g.c_out * g.pooled.h * g.pooled.w;
    // Poison: a value that is left out shows.
    std::vector<float> y(count, -1.0f), threaded(count, -1.0f);
    std::vector<Index> index(count, Index(-1));
    conv_pool2d_plain<float, Index>(g, Activation::relu, x.data(), w.data(), b.data(), y.data(),
                                    index.data(), Serial());
    conv_pool2d_plain<float, Index>(g, Activation::relu, x.data(), w.data(), b.data(),
                                    threaded.data(), nullptr, TwoThreads());
    CHECK(y == threaded);
    int64_t at = 0;
    for (int64_t n = 0; n < g.n; ++n) {
      for (int64_t o = 0; o < g.c_out; ++o) {
        for (int64_t p = 0; p < g.pooled.h; ++p) {
          for (int64_t q = 0; q < g.pooled.w; ++q, ++at) {
            const Winner expected = pooled_value(g, x, w, b, n, o, p, q);
            REQUIRE(y[at] == static_cast<float>(expected.value));
            REQUIRE(index[at] == expected.tap);
          }
        }
      }
    }
  }
}

TEST_CASE("gather is the transpose of route") {
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    const Geometry g = random_geometry(random);
    const auto x = integers(g.n * g.c_in * g.image.h * g.image.w, random);
    const auto w = integers(g.c_out * g.c_in / g.groups * g.kernel.h * g.kernel.w, random);
    const int64_t pooled = g.n * g.c_out * g.pooled.h * g.pooled.w;
    const int64_t conv = g.n * g.c_out * g.conv.h * g.conv.w;
    std::vector<float> y(pooled);
    std::vector<uint8_t> index(pooled);
    conv_pool2d_plain<float, uint8_t>(g, Activation::none, x.data(), w.data(), nullptr, y.data(),
                                      index.data(), Serial());
    const PoolGeometry pool{g.n * g.c_out,  g.pool_size, g.pool_stride,
                            g.pool_padding, g.conv,      g.pooled};
    const auto a = integers(pooled, random);
    const auto b = integers(conv, random);
    std::vector<float> routed(conv, NAN), gathered(pooled, NAN);
    REQUIRE(pool_route(pool, a.data(), index.data(), routed.data(), TwoThreads()));
    REQUIRE(pool_gather(pool, b.data(), index.data(), gathered.data(), Serial()));
    double left = 0, right = 0;
    for (int64_t i = 0; i < conv; ++i) left += routed[i] * b[i];
    for (int64_t i = 0; i < pooled; ++i) right += a[i] * gathered[i];
    CHECK(left == right);
  }
}

TEST_CASE("the typed call equals LibTorch's ops and is differentiable") {
  const at::Tensor x = at::randint(-4, 5, {2, 3, 20, 21}).to(at::kFloat);
  const at::Tensor w = at::randint(-4, 5, {6, 3, 3, 3}).to(at::kFloat).requires_grad_();
  const at::Tensor b = at::randint(-4, 5, {6}).to(at::kFloat);
  const at::Tensor y = convship::ops::conv_pool2d(
      x, w, b, {.stride = {2, 1}, .padding = {1, 0}, .pool_size = {3, 2}, .ceil_mode = true});
  const at::Tensor expected =
      at::max_pool2d(at::relu(at::conv2d(x, w, b, {2, 1}, {1, 0})), {3, 2}, {3, 2}, 0, 1, true);
  CHECK(at::equal(y, expected));
  y.sum().backward();
  const at::Tensor grad = w.grad().clone();
  w.mutable_grad().reset();
  expected.sum().backward();
  CHECK(at::equal(grad, w.grad()));
}

TEST_CASE("the typed call refuses with the kind and message of Python's") {
  const at::Tensor x = at::ones({1, 3, 8, 8});
  const at::Tensor w = at::ones({8, 3, 3});
  CHECK_THROWS_WITH_AS(
      convship::ops::conv_pool2d(x, w),
      doctest::Contains(
          "weight must be [C_out, C_in/groups, K_h, K_w], got 3 dimensions [8, 3, 3]"),
      c10::ValueError);
  CHECK_THROWS_AS(convship::ops::conv_pool2d(x, at::ones({8, 3, 3, 3}, at::kDouble)),
                  c10::TypeError);
}

TEST_CASE("the instruction set can be read, chosen, and not invented") {
  const auto available = convship::available_isas();
  REQUIRE_FALSE(available.empty());
  convship::set_isa(available.back());
  CHECK(convship::active_isa() == available.back());
  CHECK_THROWS_AS(convship::set_isa("mmx"), std::invalid_argument);
}
