#include "stub_backend.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <atomic>
#include <new>
#include <stdexcept>

#include "convship/isa.h"
#include "convship/ops.h"
#include "runtime/backend.h"

namespace convship::testing {
namespace {

std::atomic<Step> failing{Step::none};
std::atomic<Thrown> kind{Thrown::integer};

void reach(Step step) {
  if (failing != step) return;
  switch (kind) {
    case Thrown::torch_error:
      C10_THROW_ERROR(Error, "the stub fails\nin two lines");
    case Thrown::bad_alloc:
      throw std::bad_alloc();
    case Thrown::length_error:
      throw std::length_error("the stub fails");
    case Thrown::integer:
      throw 42;
  }
}

// Loops of our own, which a sanitizer sees.
at::Tensor copy_of(const at::Tensor& tensor) {
  at::Tensor copy = at::empty_like(tensor, at::MemoryFormat::Contiguous);
  const at::Tensor dense = tensor.contiguous();
  const auto* from = static_cast<const char*>(dense.const_data_ptr());
  std::copy(from, from + dense.nbytes(), static_cast<char*>(copy.mutable_data_ptr()));
  return copy;
}

at::Tensor channel_sums(const at::Tensor& images) {
  const at::Tensor dense = images.contiguous();
  at::Tensor sums = at::empty({dense.size(0), dense.size(1)}, at::kFloat);
  const std::int64_t pixels = dense.size(2) * dense.size(3);
  const float* from = dense.const_data_ptr<float>();
  float* to = sums.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < sums.numel(); ++i) {
    to[i] = 0;
    for (std::int64_t k = 0; k < pixels; ++k) to[i] += from[i * pixels + k];
  }
  return sums;
}

class StubBackend final : public runtime::NetworkBackend {
 public:
  explicit StubBackend(bool classifier) : classifier_(classifier) { reach(Step::load); }

  std::vector<std::string> input_names() const override {
    reach(Step::input_names);
    return {classifier_ ? "input" : "x"};
  }

  runtime::NamedAtTensors forward(std::vector<at::Tensor> inputs) const override {
    reach(Step::forward);
    runtime::NamedAtTensors outputs;
    outputs.emplace_back(classifier_ ? "logits" : "sum",
                         classifier_ ? channel_sums(inputs.at(0)) : copy_of(inputs.at(0)));
    return outputs;
  }

  bool is_pure() const override { return true; }

  PlanReport plan(const std::vector<at::Tensor>&) const override { return {}; }

  // The top left corner, [N, 3, 2, 2].
  at::Tensor preprocess(const at::Tensor& images) const override {
    reach(Step::preprocess);
    at::Tensor out = at::empty({images.size(0), 3, 2, 2}, at::kFloat);
    float* to = out.mutable_data_ptr<float>();
    const auto from = images.accessor<std::uint8_t, 4>();
    for (std::int64_t i = 0; i < out.numel(); ++i) {
      const std::int64_t y = std::min<std::int64_t>(i / 2 % 2, images.size(2) - 1);
      const std::int64_t x = std::min<std::int64_t>(i % 2, images.size(3) - 1);
      to[i] = from[i / 12][i / 4 % 3][y][x];
    }
    return out;
  }

 private:
  bool classifier_;
};

}  // namespace

void fail_at(Step step, Thrown thrown) {
  kind = thrown;
  failing = step;
}

}  // namespace convship::testing

namespace convship::runtime {

std::unique_ptr<NetworkBackend> load_torchscript(const Archive&,
                                                 const Manifest* manifest,
                                                 Backend,
                                                 LoadTimes& times) {
  times.mark("stub");
  return std::make_unique<testing::StubBackend>(manifest != nullptr && manifest->classifier);
}

std::unique_ptr<NetworkBackend> load_aotinductor(const Archive&,
                                                 const Manifest& manifest,
                                                 Backend,
                                                 LoadTimes& times) {
  times.mark("stub");
  return std::make_unique<testing::StubBackend>(manifest.classifier);
}

}  // namespace convship::runtime

// What the runtime asks of the op library, so that it can be tested without: it
// takes a sanitizer ten minutes to build.
namespace convship {

std::string active_isa() { return "stub"; }
std::vector<std::string> available_isas() { return {"stub"}; }

namespace ops {

void register_ops() {}

}  // namespace ops
}  // namespace convship
