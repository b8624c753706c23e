#pragma once

#include <filesystem>
#include <vector>

namespace convship::apps {

// Files as given; folders searched recursively for .jpg, .jpeg and .png, in
// sorted order. Throws Error(image) for a folder without any.
std::vector<std::filesystem::path> image_files(const std::vector<std::filesystem::path>& paths);

}  // namespace convship::apps
