// A temporary folder that nobody else can look into.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace convship::runtime {

// In TMPDIR, or /tmp. Removes itself and what was written to it. Throws
// Error(environment) where it cannot be made or filled.
class PrivateFolder {
 public:
  PrivateFolder();
  ~PrivateFolder();
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;

  // A new file, `name` without folders. Returns its path.
  std::filesystem::path write(const std::string& name, std::span<const std::byte> bytes);

 private:
  std::filesystem::path path_;
  std::vector<std::filesystem::path> files_;
};

}  // namespace convship::runtime
