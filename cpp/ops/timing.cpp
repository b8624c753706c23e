#include "ops/timing.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace convship::ops {

std::pair<at::Tensor, double> time_conv_pool2d(const c10::intrusive_ptr<PackedConv>& packed,
                                               const at::Tensor& input,
                                               double seconds) {
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;
  TORCH_CHECK_VALUE(seconds > 0, "time_conv_pool2d: seconds must be positive, got ", seconds);
  at::Tensor output = conv_pool2d_packed(input, packed);

  // Reading the clock takes some 30 ns: a thousandth of a batch, or less.
  constexpr double kBatchSeconds = 50e-6;
  const auto batch = [&](int64_t calls) {
    const auto begin = Clock::now();
    for (int64_t i = 0; i < calls; ++i) output = conv_pool2d_packed(input, packed);
    return Seconds(Clock::now() - begin).count();
  };
  const auto start = Clock::now();
  int64_t calls = 1;
  while (batch(calls) < kBatchSeconds) calls *= 2;

  std::vector<double> times;
  do {
    times.push_back(batch(calls) / static_cast<double>(calls));
  } while (Seconds(Clock::now() - start).count() < seconds);
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return {output, *middle};
}

}  // namespace convship::ops
