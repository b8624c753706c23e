#include "op_libraries.h"

#include <dlfcn.h>

#include "convship/error.h"

namespace convship::runtime {

void load_op_libraries(const std::vector<std::filesystem::path>& paths) {
  for (const auto& path : paths) {
    // Without a slash the loader would search its own folders and not this one.
    const auto full = std::filesystem::absolute(path);
    if (dlopen(full.c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) continue;
    const char* reason = dlerror();
    throw Error(ErrorCode::environment, path.string() +
                                            ": this operator library cannot be loaded (" +
                                            (reason != nullptr ? reason : "no reason given") +
                                            "); it must be built for the LibTorch of this program");
  }
}

}  // namespace convship::runtime
