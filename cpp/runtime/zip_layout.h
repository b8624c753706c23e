// Whether every reader takes a ZIP archive for the same thing. libzip, which
// checks and reads it here, and the reader in LibTorch, which reads it
// afterwards, differ in what they believe where the format says a thing twice,
// and in what they ignore. So only what torch's own writer makes is let through:
// members one after the other from the first byte, then the directory, then the
// end, and no field that makes a reader do anything special.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace convship::runtime {

// Empty, or what is wrong. `comment_size` bytes at the end are the comment.
std::string layout_problem(std::span<const std::byte> bytes, std::size_t comment_size);

}  // namespace convship::runtime
