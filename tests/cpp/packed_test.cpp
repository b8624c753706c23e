// Packed weights and the settings of the process, through the library that
// holds the only copy of them: this program must not link the kernels itself.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <doctest/doctest.h>

#include <array>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "convship/accuracy.h"
#include "convship/isa.h"
#include "convship/ops.h"
#include "ops/constant_weights.h"
#include "ops/packed_cache.h"
#include "ops/packed_conv.h"

TEST_CASE("the default accuracy can be read, chosen, and not invented") {
  CHECK(convship::default_accuracy() == "fast");
  convship::set_default_accuracy("direct");
  CHECK(convship::default_accuracy() == "direct");
  CHECK_THROWS_AS(convship::set_default_accuracy("exact"), std::invalid_argument);
  convship::set_default_accuracy("fast");
}

TEST_CASE("packed weights serve threads, and tell which loop they ran") {
  const at::NoGradGuard no_gradients;
  const at::Tensor x = at::randn({2, 3, 20, 21});
  const at::Tensor w = at::randn({6, 3, 3, 3});
  const at::Tensor b = at::randn({6});
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    const at::Tensor expected = convship::ops::conv_pool2d(x, w, b, {.padding = {1, 0}});
    const auto packed = convship::ops::conv_pool2d_prepack(w, b, {.padding = {1, 0}});
    std::vector<std::thread> threads;
    std::array<bool, 3> same{};
    for (bool& result : same) {
      threads.emplace_back([&] {
        result = at::equal(convship::ops::conv_pool2d_packed(x, packed), expected) &&
                 convship::last_isa() == isa && !convship::last_family().empty();
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(same == std::array<bool, 3>{true, true, true});
  }
  convship::set_isa(convship::available_isas().front());
}

TEST_CASE("a cache of packed weights follows its parameters and leaves gradients to the op") {
  const at::Tensor x = at::randn({2, 3, 20, 21});
  at::Tensor w = at::randn({6, 3, 3, 3});
  convship::ops::PackedCache cache({});
  CHECK_FALSE(cache.run(x, w, std::nullopt).defined());
  const at::NoGradGuard no_gradients;
  for (int round = 0; round < 3; ++round) {
    CHECK(at::equal(cache.run(x, w, std::nullopt), convship::ops::conv_pool2d(x, w)));
    w.add_(1);
  }
}

TEST_CASE("constants are packed once while they are used, and what is computed each time") {
  using convship::ops::ConstantWeights;
  using convship::ops::packings;
  const at::NoGradGuard no_gradients;
  const at::Tensor x = at::randn({2, 3, 20, 21});
  const at::Tensor w = at::randn({6, 3, 3, 3});
  const at::Tensor b = at::randn({6});
  // As compiled code makes it: another tensor of the same memory in every call.
  const auto again = [](const at::Tensor& t) { return t.as_strided(t.sizes(), t.strides()); };
  const auto packs_of = [&](const at::Tensor& weight, const at::Tensor& bias) {
    const int64_t before = packings().made;
    const at::Tensor y = convship::ops::conv_pool2d(x, weight, bias);
    const int64_t made = packings().made - before;
    CHECK(at::equal(y, convship::ops::conv_pool2d_packed(
                           x, convship::ops::conv_pool2d_prepack(weight, bias, {}))));
    return made;
  };
  CHECK(packs_of(w, b) == 1);
  const int64_t kept = packings().kept;
  {
    ConstantWeights weights({w, b});
    CHECK(packs_of(w, b) == 1);  // nobody uses them
    {
      const ConstantWeights::Use use(weights);
      CHECK(packs_of(w, b) == 1);
      CHECK(packs_of(w, b) == 0);
      CHECK(packs_of(again(w), again(b)) == 0);
      CHECK(packs_of(w.transpose(2, 3), b) == 1);  // the same memory as other weights
      CHECK(packs_of(w.transpose(2, 3), b) == 0);
      CHECK(packs_of(w.neg(), b) == 1);  // no constant
      CHECK(packs_of(w.neg(), b) == 1);
      CHECK(packs_of(w, b.neg()) == 1);
      convship::set_default_accuracy("direct");
      CHECK(packs_of(w, b) == 1);
      convship::set_default_accuracy("fast");
      CHECK(packs_of(w, b) == 0);
      bool elsewhere = false;
      std::thread([&] { elsewhere = packs_of(w, b) == 1; }).join();
      CHECK(elsewhere);
    }
    CHECK(packs_of(w, b) == 1);
    CHECK(packings().kept == kept + 3);
  }
  CHECK(packings().kept == kept);
}
