#include <cctype>

#include "images/decoders.h"

namespace convship::images {

void fail(ErrorKind kind, std::string_view subject, const std::string& message) {
  throw ImageError(kind, std::string(subject) + ": " + message);
}

void fail_damaged(std::string_view subject, std::string_view format, std::string_view cause) {
  std::string text(cause);
  // "Premature end" -> "premature end", but "IDAT: ..." stays.
  if (text.size() > 1 && std::islower(static_cast<unsigned char>(text[1]))) {
    text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  }
  fail(ErrorKind::damaged, subject,
       "the " + std::string(format) + " data is damaged or truncated (" + text + ")");
}

void fail_memory(std::string_view subject, const Limits& limits) {
  fail(ErrorKind::too_large, subject,
       "decoding must not take more than " + std::to_string(limits.max_memory_bytes) +
           " bytes of memory, this image needs more; make it smaller or save it non-progressive "
           "and non-interlaced");
}

void check_size(int64_t height, int64_t width, const Limits& limits, std::string_view subject) {
  const std::string received = std::to_string(width) + " x " + std::to_string(height);
  if (height <= 0 || width <= 0) {
    fail(ErrorKind::damaged, subject, "an image must have pixels, got " + received);
  }
  if (height > limits.max_side || width > limits.max_side) {
    fail(ErrorKind::too_large, subject,
         "width and height must be at most " + std::to_string(limits.max_side) + " pixels, got " +
             received + "; make the image smaller");
  }
  if (height * width > limits.max_pixels) {
    fail(ErrorKind::too_large, subject,
         "an image must have at most " + std::to_string(limits.max_pixels) + " pixels, got " +
             received + "; make it smaller");
  }
  if (height * width * 3 > limits.max_memory_bytes) fail_memory(subject, limits);
}

}  // namespace convship::images
