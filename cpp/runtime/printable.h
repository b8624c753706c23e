// Text out of a file for a message: short, on one line, ASCII whatever it was.
#pragma once

#include <string>
#include <string_view>

namespace convship::runtime {

inline std::string printable(std::string_view text) {
  constexpr std::size_t kMost = 200;
  std::string result(text.substr(0, kMost));
  for (char& c : result) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || code >= 0x7f) c = '?';
  }
  return text.size() > kMost ? result + "..." : result;
}

}  // namespace convship::runtime
