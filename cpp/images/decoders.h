#pragma once
// Internal to this folder: what the decoders share.
//
// libjpeg and libpng report errors by a function that must not return, and
// neither library may be unwound by a C++ exception, so both decoders use
// setjmp/longjmp. A longjmp that skips a C++ destructor is undefined
// behaviour. Hence one shape for both:
//   - a session object owns the library's state and frees it in its destructor;
//   - each step that calls the library is one noexcept function holding the
//     setjmp. It and all it calls work on plain pointers and numbers only, and
//     what it sets after setjmp lives in the session, not in locals;
//   - the function that owns sessions and vectors calls these steps and turns
//     their result into an exception. No jump ever crosses its frame.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "images/decode.h"

namespace convship::images {

using Bytes = std::span<const std::byte>;

Image decode_jpeg(Bytes bytes, const Limits& limits, std::string_view subject);
Image decode_png(Bytes bytes, const Limits& limits, std::string_view subject);

[[noreturn]] void fail(ErrorKind kind, std::string_view subject, const std::string& message);

// The libraries' own text in brackets, its first letter in lower case.
[[noreturn]] void fail_damaged(std::string_view subject,
                               std::string_view format,
                               std::string_view cause);

[[noreturn]] void fail_memory(std::string_view subject, const Limits& limits);

// Refuses dimensions and result sizes beyond the limits.
void check_size(int64_t height, int64_t width, const Limits& limits, std::string_view subject);

}  // namespace convship::images
