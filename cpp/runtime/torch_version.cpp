#include "torch_version.h"

namespace convship::runtime {
namespace {

std::string minor_of(const std::string& version) {
  return version.substr(0, version.find('.', version.find('.') + 1));
}

}  // namespace

std::string torch_mismatch(const std::string& built, const std::string& loaded) {
  if (minor_of(built) == minor_of(loaded)) return {};
  return "libconvship was built for LibTorch " + minor_of(built) + ", this process has " + loaded +
         "; install that torch (pip install \"torch==" + minor_of(built) +
         ".*\") or build convship again";
}

}  // namespace convship::runtime
