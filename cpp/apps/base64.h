#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

namespace convship::apps {

// RFC 4648, with or without padding; nothing for anything else.
std::optional<std::vector<std::byte>> decode_base64(std::string_view text);

}  // namespace convship::apps
