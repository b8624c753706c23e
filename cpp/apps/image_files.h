#pragma once

#include <filesystem>
#include <vector>

namespace convship::apps {

// Files as given; folders searched recursively for .jpg, .jpeg and .png, in
// sorted order. Throws Error(image) for a folder without any.
std::vector<std::filesystem::path> image_files(const std::vector<std::filesystem::path>& paths);

// All of a file. Throws Error(image) where it cannot be opened.
std::vector<char> read_bytes(const std::filesystem::path& path);

}  // namespace convship::apps
