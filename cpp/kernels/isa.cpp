#include "convship/isa.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <stdexcept>

namespace convship {
namespace {

constexpr std::array<std::string_view, 1> kIsas = {"baseline"};

std::atomic<std::size_t> active = 0;

}  // namespace

std::vector<std::string> available_isas() { return {kIsas.begin(), kIsas.end()}; }

std::string active_isa() { return std::string(kIsas[active]); }

void set_isa(std::string_view name) {
  std::string known;
  for (std::size_t i = 0; i < kIsas.size(); ++i) {
    if (kIsas[i] == name) {
      active = i;
      return;
    }
    known += (known.empty() ? "" : ", ") + std::string(kIsas[i]);
  }
  throw std::invalid_argument("isa must be one of " + known + " on this machine, got '" +
                              std::string(name) + "'");
}

}  // namespace convship
