// The files of the page at "/", compiled in.
#pragma once

#include <string_view>

namespace convship::serve {

extern const std::string_view kPageHtml;
extern const std::string_view kPageStyle;
extern const std::string_view kPageScript;

}  // namespace convship::serve
