// JPEG through libjpeg-turbo. decoders.h says how errors travel.
#include <algorithm>
#include <csetjmp>

// jpeglib.h needs FILE and size_t declared before it.
// clang-format off
#include <cstdio>
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include "images/decoders.h"

namespace convship::images {
namespace {

// Plain data: the library's callbacks reach it through cinfo->client_data.
struct JpegState {
  jpeg_decompress_struct cinfo;
  jpeg_error_mgr error;
  jpeg_progress_mgr progress;
  std::jmp_buf jump;
  int max_scans;
  bool too_many_scans;
  bool unfinished;
  char message[JMSG_LENGTH_MAX];
};

class JpegSession {
 public:
  JpegSession() = default;
  ~JpegSession() { jpeg_destroy_decompress(&state.cinfo); }  // fine before creation too
  JpegSession(const JpegSession&) = delete;
  JpegSession& operator=(const JpegSession&) = delete;

  JpegState state{};
};

JpegState& state_of(j_common_ptr cinfo) { return *static_cast<JpegState*>(cinfo->client_data); }

[[noreturn]] void on_error(j_common_ptr cinfo) {
  JpegState& state = state_of(cinfo);
  cinfo->err->format_message(cinfo, state.message);
  std::longjmp(state.jump, 1);
}

// Level -1 is a warning, others are traces. After a warning libjpeg goes on
// and makes pixels up, so it is an error here, unless nothing is made up:
// header fields that nothing depends on, and bytes that belong to no segment,
// which some cameras and editors leave before a marker and every reader skips.
void on_message(j_common_ptr cinfo, int level) {
  if (level >= 0) return;
  const int code = cinfo->err->msg_code;
  if (code == JWRN_ADOBE_XFORM || code == JWRN_JFIF_MAJOR || code == JWRN_EXTRANEOUS_DATA) return;
  on_error(cinfo);
}

void on_output(j_common_ptr) {}  // the default prints to stderr

// Each scan of a progressive file costs a pass over the whole image, however
// few bytes it has.
void on_progress(j_common_ptr cinfo) {
  JpegState& state = state_of(cinfo);
  if (state.cinfo.input_scan_number > state.max_scans) {
    state.too_many_scans = true;
    std::longjmp(state.jump, 1);
  }
}

// Reads up to the first scan. False: see state.message.
bool read_header(JpegState& state, const unsigned char* bytes, size_t size) noexcept {
  jpeg_decompress_struct& cinfo = state.cinfo;
  cinfo.err = jpeg_std_error(&state.error);
  state.error.error_exit = on_error;
  state.error.emit_message = on_message;
  state.error.output_message = on_output;
  cinfo.client_data = &state;
  if (setjmp(state.jump)) return false;

  jpeg_create_decompress(&cinfo);  // keeps err and client_data
  jpeg_mem_src(&cinfo, bytes, static_cast<unsigned long>(size));
  // A stream of tables alone may come before the image.
  while (jpeg_read_header(&cinfo, FALSE) != JPEG_HEADER_OK) {
  }
  return true;
}

// Pillow's CMYK -> RGB after its inversion of the four channels, which makes
// the inks here c, m, y, k = 255 - stored.
void cmyk_row_to_rgb(const uint8_t* cmyk, int64_t width, uint8_t* rgb) noexcept {
  for (int64_t x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    const int white = cmyk[3];  // 255 - k
    for (int channel = 0; channel < 3; ++channel) {
      const int product = (255 - cmyk[channel]) * white + 128;
      const int ink = ((product >> 8) + product) >> 8;  // product / 255, rounded
      rgb[channel] = static_cast<uint8_t>(white > ink ? white - ink : 0);
    }
  }
}

// A progressive file may end before every coefficient has its last bit.
// libjpeg then guesses the first ten from neighbouring blocks, and each of its
// versions guesses differently. 0: complete; -1: never sent.
bool has_unfinished_coefficients(const jpeg_decompress_struct& cinfo) noexcept {
  constexpr int kGuessed = 10;
  if (cinfo.coef_bits == nullptr) return false;  // not progressive
  for (int component = 0; component < cinfo.num_components; ++component) {
    const auto& bits = cinfo.coef_bits[component];
    if (std::any_of(bits, bits + kGuessed, [](int b) { return b != 0; })) return true;
  }
  return false;
}

// Decodes all rows to rgb, [H, W, 3], and reads on to the end of the image.
// False: see state.message.
bool read_rows(JpegState& state, int64_t max_memory_bytes, uint8_t* rgb) noexcept {
  jpeg_decompress_struct& cinfo = state.cinfo;
  if (setjmp(state.jump)) return false;

  cinfo.mem->max_memory_to_use = static_cast<long>(max_memory_bytes);
  state.progress.progress_monitor = on_progress;
  cinfo.progress = &state.progress;
  const bool four_channels = cinfo.num_components == 4;
  cinfo.out_color_space = four_channels ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&cinfo);  // of a progressive file this reads all scans
  if (has_unfinished_coefficients(cinfo)) {
    state.unfinished = true;
    return false;
  }

  const size_t stride = size_t{cinfo.output_width} * 3;
  JSAMPARRAY cmyk = nullptr;
  if (four_channels) {
    cmyk = cinfo.mem->alloc_sarray(reinterpret_cast<j_common_ptr>(&cinfo), JPOOL_IMAGE,
                                   cinfo.output_width * 4, 1);
  }
  while (cinfo.output_scanline < cinfo.output_height) {
    JSAMPROW row = rgb + cinfo.output_scanline * stride;
    jpeg_read_scanlines(&cinfo, four_channels ? cmyk : &row, 1);
    if (four_channels) cmyk_row_to_rgb(cmyk[0], cinfo.output_width, row);
  }
  jpeg_finish_decompress(&cinfo);
  return true;
}

[[noreturn]] void fail_unsupported(std::string_view subject, const std::string& cause) {
  fail(ErrorKind::unsupported, subject,
       "this kind of JPEG is not supported (" + cause + "); save it as an ordinary JPEG or PNG");
}

[[noreturn]] void fail_jpeg(const JpegState& state,
                            const Limits& limits,
                            std::string_view subject) {
  if (state.too_many_scans) {
    fail(ErrorKind::too_large, subject,
         "a progressive JPEG must have at most " + std::to_string(limits.max_scans) +
             " scans, this one has more; save it again");
  }
  if (state.unfinished) {
    fail_unsupported(subject, "progressive, ends before all coefficients are complete");
  }
  switch (state.error.msg_code) {
    case JERR_NO_BACKING_STORE:  // its way to say that max_memory_to_use is reached
    case JERR_OUT_OF_MEMORY:
      fail_memory(subject, limits);
    case JERR_ARITH_NOTIMPL:
    case JERR_BAD_PRECISION:
    case JERR_CCIR601_NOTIMPL:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL:
    case JERR_SOF_UNSUPPORTED:
      fail_unsupported(subject, state.message);
    default:
      fail_damaged(subject, "JPEG", state.message);
  }
}

void check_supported(const jpeg_decompress_struct& cinfo, std::string_view subject) {
  std::string cause;
  if (cinfo.arith_code) cause = "arithmetic coding";
  if (cinfo.data_precision != 8) cause = std::to_string(cinfo.data_precision) + " bits per sample";
  const int components = cinfo.num_components;
  if (components != 1 && components != 3 && components != 4) {
    cause = std::to_string(components) + " components";
  }
  if (!cause.empty()) fail_unsupported(subject, cause);
}

}  // namespace

Image decode_jpeg(Bytes bytes, const Limits& limits, std::string_view subject) {
  JpegSession session;
  JpegState& state = session.state;
  state.max_scans = limits.max_scans;
  if (!read_header(state, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size())) {
    fail_jpeg(state, limits, subject);
  }
  const jpeg_decompress_struct& cinfo = state.cinfo;
  check_size(cinfo.image_height, cinfo.image_width, limits, subject);
  check_supported(cinfo, subject);

  Image image;
  image.height = static_cast<int>(cinfo.image_height);
  image.width = static_cast<int>(cinfo.image_width);
  image.rgb.resize(size_t{cinfo.image_height} * cinfo.image_width * 3);
  // At least 1: libjpeg takes 0 for no limit.
  const int64_t left = limits.max_memory_bytes - static_cast<int64_t>(image.rgb.size());
  if (!read_rows(state, left > 0 ? left : 1, image.rgb.data())) {
    fail_jpeg(state, limits, subject);
  }
  return image;
}

}  // namespace convship::images
