// The rate that fma_loop reaches.
#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

#include "convship/isa.h"
#include "kernels/instruction_set.h"

namespace convship {

double fma_rate(double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto& isa = kernels::instruction_set(kernels::active_instruction_set());
  const auto& loops = isa.single;
  if (!loops.fma_loop) {
    throw std::invalid_argument("fma_rate: the instruction set '" + std::string(isa.name) +
                                "' has no loops over vectors");
  }
  if (!(seconds > 0)) throw std::invalid_argument("fma_rate: seconds must be positive");
  // Some 20 us between clock readings; the median leaves interruptions out.
  constexpr int64_t kRounds = 10'000;
  const double operations = 2.0 * kernels::kFmaRound * loops.lanes * kRounds;
  std::vector<double> times;
  const auto start = Clock::now();
  for (auto begin = start; begin - start < std::chrono::duration<double>(seconds);) {
    loops.fma_loop(kRounds);
    const auto end = Clock::now();
    times.push_back(std::chrono::duration<double>(end - begin).count());
    begin = end;
  }
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return operations / *middle;
}

}  // namespace convship
