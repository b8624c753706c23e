#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <string_view>

namespace convship::serve {

using Sha256 = std::array<unsigned char, 32>;

Sha256 sha256(std::string_view bytes);
// What sha256sum prints. Throws Error when the file cannot be read.
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace convship::serve
