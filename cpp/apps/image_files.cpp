#include "image_files.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

#include "convship/error.h"

namespace convship::apps {
namespace fs = std::filesystem;
namespace {

bool looks_like_image(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

}  // namespace

std::vector<fs::path> image_files(const std::vector<fs::path>& paths) {
  std::vector<fs::path> files;
  for (const fs::path& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      files.push_back(path);  // opened later, where a missing file gets its message
      continue;
    }
    std::vector<fs::path> found;
    fs::recursive_directory_iterator entries(path, fs::directory_options::skip_permission_denied,
                                             error);
    for (const auto end = fs::recursive_directory_iterator(); !error && entries != end;
         entries.increment(error)) {
      if (entries->is_regular_file() && looks_like_image(entries->path()))
        found.push_back(entries->path());
    }
    if (error)
      throw Error(ErrorCode::image, path.string() + ": cannot be read (" + error.message() + ")");
    if (found.empty()) {
      throw Error(ErrorCode::image, path.string() + ": no .jpg, .jpeg or .png file in this folder");
    }
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

std::vector<char> read_bytes(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream)
    throw Error(ErrorCode::image,
                path.string() + ": cannot be opened (" + std::strerror(errno) + ")");
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

}  // namespace convship::apps
