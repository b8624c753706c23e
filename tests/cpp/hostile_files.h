// Files made by hand to mislead a loader, each out of a sound model.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace convship::testing {

struct ZipMember;  // hostile_zip.h

struct HostileFile {
  std::string what;
  std::string bytes;
  bool allow_plain = false;
};

// `model` is a shipped classifier that loads.
std::vector<HostileFile> hostile_files(std::span<const std::byte> model);

// All members of a model's archive, uncompressed.
std::vector<ZipMember> members_of(std::span<const std::byte> model);

// The same model as an archive that the writer of hostile files made, sound: with
// its digest, and as a plain TorchScript file.
std::string rewritten(std::span<const std::byte> model, bool plain);

}  // namespace convship::testing
