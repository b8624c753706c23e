#include "convship/accuracy.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "ops/kernel_call.h"

namespace convship {
namespace {

using kernels::conv2d::Accuracy;

Accuracy parse(std::string_view name, const char* subject) {
  if (name == "direct") return Accuracy::direct;
  if (name == "fast") return Accuracy::fast;
  throw std::invalid_argument(std::string(subject) + " must be 'direct' or 'fast', got '" +
                              std::string(name) + "'");
}

std::atomic<Accuracy>& setting() {
  static std::atomic<Accuracy> value = [] {
    const char* forced = std::getenv("CONVSHIP_ACCURACY");
    return forced ? parse(forced, "CONVSHIP_ACCURACY") : Accuracy::fast;
  }();
  return value;
}

}  // namespace

std::string default_accuracy() { return setting() == Accuracy::direct ? "direct" : "fast"; }

void set_default_accuracy(std::string_view name) { setting() = parse(name, "default accuracy"); }

namespace ops {

kernels::conv2d::Accuracy resolve(Accuracy accuracy) {
  if (accuracy == Accuracy::direct) return kernels::conv2d::Accuracy::direct;
  if (accuracy == Accuracy::fast) return kernels::conv2d::Accuracy::fast;
  return setting().load(std::memory_order_relaxed);
}

}  // namespace ops
}  // namespace convship
