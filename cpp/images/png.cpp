// PNG through libpng. decoders.h says how errors travel.
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>

#include "images/decoders.h"
#include "images/png_rows.h"

namespace convship::images {
namespace {

// Plain data: libpng's callbacks reach it through their user pointers.
struct PngState {
  png_structp png;
  png_infop info;
  std::jmp_buf jump;
  const png_byte* next;
  size_t left;
  int passes;
  PngFormat format;
  uint8_t palette[256 * 3];
  char message[128];
};

class PngSession {
 public:
  PngSession() = default;
  ~PngSession() { png_destroy_read_struct(&state.png, &state.info, nullptr); }
  PngSession(const PngSession&) = delete;
  PngSession& operator=(const PngSession&) = delete;

  PngState state{};
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  PngState& state = *static_cast<PngState*>(png_get_error_ptr(png));
  std::strncpy(state.message, message, sizeof(state.message) - 1);
  std::longjmp(state.jump, 1);
}

void on_warning(png_structp, png_const_charp) {}  // the default prints to stderr

void on_read(png_structp png, png_bytep to, size_t size) {
  PngState& state = *static_cast<PngState*>(png_get_io_ptr(png));
  if (size > state.left) png_error(png, "premature end of PNG file");
  std::memcpy(to, state.next, size);
  state.next += size;
  state.left -= size;
}

void set_limits(png_structp png, const Limits& limits) {
  const auto side = static_cast<png_uint_32>(std::clamp(limits.max_side, 1, 0x7fffffff));
  png_set_user_limits(png, side, side);
  png_set_chunk_cache_max(png, 16);
  png_set_chunk_malloc_max(png, 1 << 20);
  png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  // No pixel depends on these. Unread, they cannot be bombs (zTXt, iTXt and
  // iCCP are compressed) and their faults cannot matter; checksums are checked.
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  static constexpr png_byte kTransparency[] = {'t', 'R', 'N', 'S', 0};
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, kTransparency, 1);
  // Some encoders name a window that is too small. zlib's own default, which
  // Pillow uses, reads their files.
  png_set_option(png, PNG_MAXIMUM_INFLATE_WINDOW, PNG_OPTION_ON);
}

// Reads up to the first IDAT and prepares the rows. False: see state.message.
bool read_header(PngState& state, const Limits& limits) noexcept {
  if (setjmp(state.jump)) return false;

  state.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &state, on_error, on_warning);
  if (state.png != nullptr) state.info = png_create_info_struct(state.png);
  if (state.info == nullptr) {
    std::strcpy(state.message, "libpng cannot start");
    return false;
  }
  png_set_read_fn(state.png, &state, on_read);
  set_limits(state.png, limits);
  png_read_info(state.png, state.info);

  state.format.colour_type = png_get_color_type(state.png, state.info);
  state.format.bit_depth = png_get_bit_depth(state.png, state.info);
  state.format.palette = state.palette;
  png_colorp colours = nullptr;
  int count = 0;
  if (png_get_PLTE(state.png, state.info, &colours, &count) != 0) {
    static_assert(sizeof(png_color) == 3);
    std::memcpy(state.palette, colours, static_cast<size_t>(std::min(count, 256)) * 3);
  }
  png_set_packing(state.png);
  state.passes = png_set_interlace_handling(state.png);
  png_read_update_info(state.png, state.info);
  return true;
}

// Decodes all rows to rgb, [H, W, 3], and reads on to IEND. `samples` holds
// the rows as stored: all of them when there are passes, otherwise one.
bool read_rows(PngState& state, png_byte* samples, uint8_t* rgb) noexcept {
  if (setjmp(state.jump)) return false;

  const png_uint_32 height = png_get_image_height(state.png, state.info);
  const png_uint_32 width = png_get_image_width(state.png, state.info);
  const size_t row_bytes = png_get_rowbytes(state.png, state.info);
  const size_t rgb_stride = size_t{width} * 3;
  const bool interlaced = state.passes > 1;
  for (int pass = 0; interlaced && pass < state.passes; ++pass) {
    for (png_uint_32 y = 0; y < height; ++y) {
      png_read_row(state.png, samples + y * row_bytes, nullptr);
    }
  }
  for (png_uint_32 y = 0; y < height; ++y) {
    png_byte* row = samples + (interlaced ? y * row_bytes : 0);
    if (!interlaced) png_read_row(state.png, row, nullptr);
    png_row_to_rgb(state.format, row, width, rgb + y * rgb_stride);
  }
  png_read_end(state.png, nullptr);
  return true;
}

uint32_t big_endian(Bytes bytes, size_t offset) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<uint32_t>(bytes[offset + i]);
  return value;
}

// Looks at the chunks before the image data: the size, so that the limits
// speak before libpng does, and what libpng ignores but Pillow obeys.
void check_chunks(Bytes bytes, const Limits& limits, std::string_view subject) {
  constexpr size_t kFirstChunk = 8;
  constexpr size_t kChunkExtra = 12;  // length, type, checksum
  size_t offset = kFirstChunk;
  int64_t height = 0;
  int64_t width = 0;
  while (bytes.size() - offset >= kChunkExtra) {
    const size_t length = big_endian(bytes, offset);
    const std::string_view type(reinterpret_cast<const char*>(&bytes[offset + 4]), 4);
    if (type == "IDAT" || length > bytes.size() - offset - kChunkExtra) return;
    if (type == "IHDR" && length >= 8 && offset == kFirstChunk) {
      width = big_endian(bytes, offset + 8);
      height = big_endian(bytes, offset + 12);
      check_size(height, width, limits, subject);
    } else if (type == "fdAT") {
      fail_damaged(subject, "PNG", "animation data before the image data");
    } else if (type == "fcTL" && length >= 20 &&
               (big_endian(bytes, offset + 12) != width ||
                big_endian(bytes, offset + 16) != height)) {
      fail(ErrorKind::unsupported, subject,
           "the first frame of an animated PNG must cover the whole image; save it as a still "
           "image");
    }
    offset += length + kChunkExtra;
  }
}

}  // namespace

Image decode_png(Bytes bytes, const Limits& limits, std::string_view subject) {
  check_chunks(bytes, limits, subject);
  PngSession session;
  PngState& state = session.state;
  state.next = reinterpret_cast<const png_byte*>(bytes.data());
  state.left = bytes.size();
  if (!read_header(state, limits)) fail_damaged(subject, "PNG", state.message);

  const size_t height = png_get_image_height(state.png, state.info);
  const size_t width = png_get_image_width(state.png, state.info);
  const size_t row_bytes = png_get_rowbytes(state.png, state.info);
  const size_t sample_bytes = row_bytes * (state.passes > 1 ? height : 1);
  check_size(static_cast<int64_t>(height), static_cast<int64_t>(width), limits, subject);
  if (static_cast<int64_t>(height * width * 3 + sample_bytes) > limits.max_memory_bytes) {
    fail_memory(subject, limits);
  }

  Image image;
  image.height = static_cast<int>(height);
  image.width = static_cast<int>(width);
  image.rgb.resize(height * width * 3);
  std::vector<uint8_t> samples(sample_bytes);
  if (!read_rows(state, samples.data(), image.rgb.data())) {
    fail_damaged(subject, "PNG", state.message);
  }
  return image;
}

}  // namespace convship::images
