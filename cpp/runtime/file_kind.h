// Names a file that is no model for what it is, so that nobody has to guess
// from an error message of LibTorch's reader.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace convship::runtime {

// What a file that is no ZIP archive looks like, with what to do about it.
std::string describe_other_file(std::span<const std::byte> bytes);

// What an archive's members say about it.
struct ArchiveContents {
  std::function<bool(std::string_view)> has;         // a member of this path
  std::function<bool(std::string_view)> has_folder;  // a member below this folder, "code/"
  std::function<std::string(std::string_view)> text;
};

bool is_torchscript(const ArchiveContents& contents);
bool is_aotinductor(const ArchiveContents& contents);

// Empty for a TorchScript archive; otherwise what it is and what to do about it.
std::string describe_other_archive(const ArchiveContents& contents);

// Empty where LibTorch can read the version and byte order of a TorchScript
// archive; otherwise what is wrong.
std::string describe_unreadable_version(const ArchiveContents& contents);

}  // namespace convship::runtime
