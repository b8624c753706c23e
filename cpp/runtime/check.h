// All that is checked of a file before LibTorch sees a byte of it, but for the
// operators that it needs, which only LibTorch's registry knows.
#pragma once

#include <optional>

#include "archive.h"
#include "manifest.h"

namespace convship::runtime {

struct CheckedFile {
  Archive archive;
  std::optional<Manifest> manifest;  // empty for a plain TorchScript file
};

// Throws as open_archive and parse_manifest do.
CheckedFile check_file(std::vector<std::byte> bytes,
                       const std::string& name,
                       const Accepted& accepted);

}  // namespace convship::runtime
