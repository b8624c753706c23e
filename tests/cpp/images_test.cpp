// Limits, damage, errors and exact pixels. Parity with Pillow on many files is
// tests/python/test_images.py.

// jpeglib.h needs FILE and size_t declared before it.
// clang-format off
#include <cstdio>
#include <jpeglib.h>
// clang-format on
#include <doctest/doctest.h>
#include <png.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include "images/decode.h"

using namespace convship::images;

namespace {

using Buffer = std::vector<std::byte>;

struct JpegOptions {
  int width = 13;
  int height = 11;
  J_COLOR_SPACE colours = JCS_YCbCr;
  int h_samp = 2;
  int v_samp = 2;
  bool progressive = false;
  bool arithmetic = false;
  bool dc_only = false;     // a progressive file that stops after the first coefficients
  bool many_scans = false;  // progressive, one scan for each coefficient of each component
  int value = -1;           // of every sample; -1 for a pattern
};

int input_channels(J_COLOR_SPACE colours) {
  return colours == JCS_GRAYSCALE ? 1 : colours == JCS_CMYK || colours == JCS_YCCK ? 4 : 3;
}

std::vector<jpeg_scan_info> scan_script(int components, int coefficients) {
  std::vector<jpeg_scan_info> scans;
  for (int k = 0; k < coefficients; ++k) {
    for (int c = 0; c < components; ++c) scans.push_back({1, {c}, k, k, 0, 0});
  }
  return scans;
}

Buffer encode_jpeg(const JpegOptions& options = {}) {
  const int channels = input_channels(options.colours);
  jpeg_compress_struct cinfo;
  jpeg_error_mgr errors;
  cinfo.err = jpeg_std_error(&errors);
  jpeg_create_compress(&cinfo);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&cinfo, &memory, &size);
  cinfo.image_width = static_cast<JDIMENSION>(options.width);
  cinfo.image_height = static_cast<JDIMENSION>(options.height);
  cinfo.input_components = channels;
  cinfo.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_set_defaults(&cinfo);
  jpeg_set_colorspace(&cinfo, options.colours);
  cinfo.arith_code = options.arithmetic;
  cinfo.comp_info[0].h_samp_factor = options.h_samp;
  cinfo.comp_info[0].v_samp_factor = options.v_samp;
  std::vector<jpeg_scan_info> scans;
  if (options.progressive) jpeg_simple_progression(&cinfo);
  if (options.dc_only || options.many_scans) {
    scans = scan_script(channels, options.dc_only ? 1 : 64);
    cinfo.scan_info = scans.data();
    cinfo.num_scans = static_cast<int>(scans.size());
  }
  jpeg_start_compress(&cinfo, TRUE);
  std::vector<unsigned char> row(static_cast<size_t>(options.width * channels));
  for (int y = 0; y < options.height; ++y) {
    for (size_t i = 0; i < row.size(); ++i) {
      const int pattern = static_cast<int>(i) * 9 + y * 14;
      row[i] = static_cast<unsigned char>(options.value >= 0 ? options.value : pattern);
    }
    JSAMPROW rows = row.data();
    jpeg_write_scanlines(&cinfo, &rows, 1);
  }
  jpeg_finish_compress(&cinfo);
  jpeg_destroy_compress(&cinfo);
  const auto* bytes = reinterpret_cast<const std::byte*>(memory);
  Buffer out(bytes, bytes + size);
  std::free(memory);
  return out;
}

struct PngOptions {
  int width = 7;
  int height = 5;
  int colour_type = PNG_COLOR_TYPE_RGB;
  int bit_depth = 8;
  bool interlaced = false;
};

int png_channels(int colour_type) {
  if (colour_type == PNG_COLOR_TYPE_PALETTE) return 1;
  return 1 + (colour_type & PNG_COLOR_MASK_COLOR ? 2 : 0) +
         (colour_type & PNG_COLOR_MASK_ALPHA ? 1 : 0);
}

// `sample(y, i)` gives byte i of row y as PNG stores it.
Buffer encode_png(const PngOptions& options, const std::function<int(int, int)>& sample) {
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  Buffer out;
  png_set_write_fn(
      png, &out,
      [](png_structp p, png_bytep data, size_t size) {
        const auto* bytes = reinterpret_cast<const std::byte*>(data);
        auto& to = *static_cast<Buffer*>(png_get_io_ptr(p));
        to.insert(to.end(), bytes, bytes + size);
      },
      [](png_structp) {});
  png_set_IHDR(png, info, static_cast<png_uint_32>(options.width),
               static_cast<png_uint_32>(options.height), options.bit_depth, options.colour_type,
               options.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_BASE, PNG_FILTER_TYPE_BASE);
  if (options.colour_type == PNG_COLOR_TYPE_PALETTE) {
    const png_color colours[] = {{1, 2, 3}, {40, 50, 60}, {7, 8, 9}};
    png_set_PLTE(png, info, colours, 3);
  }
  png_write_info(png, info);
  const size_t bits =
      static_cast<size_t>(options.width * png_channels(options.colour_type) * options.bit_depth);
  std::vector<std::vector<png_byte>> rows(static_cast<size_t>(options.height));
  std::vector<png_bytep> pointers;
  for (size_t y = 0; y < rows.size(); ++y) {
    for (size_t i = 0; i < (bits + 7) / 8; ++i) {
      rows[y].push_back(static_cast<png_byte>(sample(static_cast<int>(y), static_cast<int>(i))));
    }
    pointers.push_back(rows[y].data());
  }
  png_write_image(png, pointers.data());
  png_write_end(png, nullptr);
  png_destroy_write_struct(&png, &info);
  return out;
}

int pattern(int y, int i) { return (y * 31 + i * 7) & 255; }

Buffer text(std::string_view content) {
  const auto* bytes = reinterpret_cast<const std::byte*>(content.data());
  return Buffer(bytes, bytes + content.size());
}

struct Caught {
  ErrorKind kind;
  std::string message;
};

Caught error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const ImageError& error) {
    return {error.kind(), error.what()};
  }
  FAIL("no error");
  return {};
}

Caught decode_error(const Buffer& bytes, const Limits& limits = {}) {
  return error_of([&] { decode(bytes, limits, "x.jpg"); });
}

bool contains(const Caught& error, std::string_view part) {
  CAPTURE(error.message);
  const bool found = error.message.find(part) != std::string::npos;
  CHECK(found);
  return found;
}

// The size in IHDR replaced, its checksum left wrong: the limits look first.
void set_png_size(Buffer& png, uint32_t width, uint32_t height) {
  for (size_t i = 0; i < 4; ++i) {
    png[16 + i] = static_cast<std::byte>(width >> (24 - 8 * i));
    png[20 + i] = static_cast<std::byte>(height >> (24 - 8 * i));
  }
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "images_test_XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::filesystem::path write(const std::string& name, const Buffer& bytes) const {
    std::ofstream file(path / name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return path / name;
  }

  std::filesystem::path path;
};

}  // namespace

TEST_CASE("images: JPEG of one gray value decodes to it in every sampling") {
  for (const J_COLOR_SPACE colours : {JCS_GRAYSCALE, JCS_YCbCr, JCS_RGB}) {
    for (const auto& [h, v] : {std::pair{1, 1}, {2, 1}, {1, 2}, {2, 2}, {4, 1}, {4, 2}}) {
      for (const bool progressive : {false, true}) {
        const Image image = decode(encode_jpeg({.colours = colours,
                                                .h_samp = h,
                                                .v_samp = v,
                                                .progressive = progressive,
                                                .value = 128}));
        CHECK(image.width == 13);
        CHECK(image.height == 11);
        CHECK(image.rgb == std::vector<uint8_t>(13 * 11 * 3, 128));
      }
    }
  }
}

TEST_CASE("images: four-component JPEG is inverted, as Adobe writes it") {
  // Stored 255 is no ink, that is white; stored 0 is all ink, that is black.
  for (const J_COLOR_SPACE colours : {JCS_CMYK, JCS_YCCK}) {
    for (const int value : {0, 255}) {
      const Image image = decode(encode_jpeg({.colours = colours, .value = value}));
      CHECK(image.rgb == std::vector<uint8_t>(13 * 11 * 3, static_cast<uint8_t>(value)));
    }
  }
}

TEST_CASE("images: PNG samples of every kind become the documented RGB") {
  for (const bool interlaced : {false, true}) {
    for (const auto& [colour, depth] : {std::pair{PNG_COLOR_TYPE_GRAY, 8},
                                        {PNG_COLOR_TYPE_GRAY, 16},
                                        {PNG_COLOR_TYPE_GRAY_ALPHA, 8},
                                        {PNG_COLOR_TYPE_GRAY_ALPHA, 16},
                                        {PNG_COLOR_TYPE_RGB, 8},
                                        {PNG_COLOR_TYPE_RGB, 16},
                                        {PNG_COLOR_TYPE_RGB_ALPHA, 8},
                                        {PNG_COLOR_TYPE_RGB_ALPHA, 16}}) {
      CAPTURE(colour);
      CAPTURE(depth);
      const PngOptions options{.colour_type = colour, .bit_depth = depth, .interlaced = interlaced};
      const Image image = decode(encode_png(options, pattern));
      REQUIRE(image.rgb.size() == 7 * 5 * 3);
      const int bytes = depth / 8;
      const int channels = png_channels(colour);
      for (int n = 0; n < 7 * 5 * 3; ++n) {
        const int y = n / 21, x = n / 3 % 7, c = channels < 3 ? 0 : n % 3;
        const int at = (x * channels + c) * bytes;
        int expected = pattern(y, at);
        const bool clipped = colour == PNG_COLOR_TYPE_GRAY && depth == 16;
        if (clipped) expected = expected > 0 ? 255 : pattern(y, at + 1);
        CHECK(image.rgb[static_cast<size_t>(n)] == expected);
      }
    }
  }
}

TEST_CASE("images: gray of 1, 2 and 4 bits is scaled to 0..255") {
  for (const int depth : {1, 2, 4}) {
    const PngOptions options{.colour_type = PNG_COLOR_TYPE_GRAY, .bit_depth = depth};
    const Image image = decode(encode_png(options, pattern));
    const int top = (1 << depth) - 1;
    for (int x = 0; x < 7; ++x) {
      const int bit = x * depth;
      const int sample = pattern(2, bit / 8) >> (8 - depth - bit % 8) & top;
      CHECK(image.rgb[static_cast<size_t>((2 * 7 + x) * 3)] == sample * 255 / top);
    }
  }
}

TEST_CASE("images: palette entries are looked up, missing ones are black") {
  const PngOptions options{.colour_type = PNG_COLOR_TYPE_PALETTE, .bit_depth = 2};
  Buffer png = encode_png(options, [](int, int) { return 0b00011000; });  // 0 1 2 0 | ...
  const Image image = decode(png);
  const std::vector<uint8_t> first(image.rgb.begin(), image.rgb.begin() + 12);
  CHECK(first == std::vector<uint8_t>{1, 2, 3, 40, 50, 60, 7, 8, 9, 1, 2, 3});
}

TEST_CASE("images: cut anywhere, an image is an error") {
  std::vector<Buffer> sources = {encode_jpeg(), encode_jpeg({.progressive = true}),
                                 encode_jpeg({.colours = JCS_CMYK}),
                                 encode_jpeg({.colours = JCS_GRAYSCALE})};
  for (const bool interlaced : {false, true}) {
    sources.push_back(encode_png({.interlaced = interlaced}, pattern));
    sources.push_back(encode_png(
        {.colour_type = PNG_COLOR_TYPE_PALETTE, .bit_depth = 2, .interlaced = interlaced},
        [](int, int) { return 0b00011000; }));
  }
  for (const Buffer& source : sources) {
    CHECK_NOTHROW(decode(source));
    for (size_t size = 0; size < source.size(); ++size) {
      CHECK_THROWS_AS(decode(std::span(source).first(size)), ImageError);
    }
  }
}

TEST_CASE("images: a changed bit is an error or an image of some size, never a crash") {
  const std::vector<Buffer> sources = {encode_jpeg(), encode_jpeg({.progressive = true}),
                                       encode_png({.interlaced = true}, pattern)};
  for (const Buffer& source : sources) {
    for (size_t bit = 0; bit < source.size() * 8; ++bit) {
      Buffer damaged = source;
      damaged[bit / 8] ^= std::byte{1} << static_cast<int>(bit % 8);
      try {
        const Image image = decode(damaged, {.max_pixels = 1 << 20});
        CHECK(image.rgb.size() == static_cast<size_t>(image.height) * image.width * 3);
      } catch (const ImageError&) {
      }
    }
  }
}

TEST_CASE("images: bytes after the end are ignored") {
  for (Buffer source : {encode_jpeg(), encode_png({}, pattern)}) {
    const Image alone = decode(source);
    source.insert(source.end(), 1000, std::byte{0xAB});
    CHECK(decode(source).rgb == alone.rgb);
  }
}

TEST_CASE("images: limits on sides and pixels hold for both formats") {
  for (const Buffer& source : {encode_jpeg({.width = 40, .height = 20}),
                               encode_png({.width = 40, .height = 20}, pattern)}) {
    CHECK_NOTHROW(decode(source, {.max_pixels = 800, .max_side = 40}));
    const Caught side = decode_error(source, {.max_side = 39});
    CHECK(side.kind == ErrorKind::too_large);
    contains(side, "x.jpg: width and height must be at most 39 pixels, got 40 x 20");
    const Caught pixels = decode_error(source, {.max_pixels = 799});
    CHECK(pixels.kind == ErrorKind::too_large);
    contains(pixels, "an image must have at most 799 pixels, got 40 x 20");
  }
}

TEST_CASE("images: a PNG that claims a huge size is refused by its first bytes") {
  Buffer png = encode_png({}, pattern);
  for (const auto& [width, height] :
       {std::pair{50000u, 50000u}, {0x7fffffffu, 0x7fffffffu}, {0xffffffffu, 1u}}) {
    set_png_size(png, width, height);
    CHECK(decode_error(png).kind == ErrorKind::too_large);
  }
  set_png_size(png, 0, 5);
  CHECK(decode_error(png).kind == ErrorKind::damaged);
}

TEST_CASE("images: memory of result and decoder is limited") {
  const int64_t result = 400 * 300 * 3;
  const Buffer baseline = encode_jpeg({.width = 400, .height = 300});
  CHECK_NOTHROW(decode(baseline, {.max_memory_bytes = result + 1}));
  CHECK(decode_error(baseline, {.max_memory_bytes = result - 1}).kind == ErrorKind::too_large);

  // Progressive: all coefficients are kept, 1.5 x 2 bytes a pixel here.
  const Buffer progressive = encode_jpeg({.width = 400, .height = 300, .progressive = true});
  const Caught error = decode_error(progressive, {.max_memory_bytes = result + 300'000});
  CHECK(error.kind == ErrorKind::too_large);
  contains(error, "decoding must not take more than 660000 bytes of memory");
  CHECK_NOTHROW(decode(progressive, {.max_memory_bytes = result + 500'000}));

  // Interlaced: all samples are kept, here 3 bytes a pixel.
  const Buffer interlaced = encode_png({.width = 400, .height = 300, .interlaced = true}, pattern);
  CHECK(decode_error(interlaced, {.max_memory_bytes = 2 * result - 1}).kind ==
        ErrorKind::too_large);
  CHECK_NOTHROW(decode(interlaced, {.max_memory_bytes = 2 * result}));
}

TEST_CASE("images: scans of a progressive JPEG are limited") {
  const Buffer source = encode_jpeg({.many_scans = true});
  CHECK_NOTHROW(decode(source, {.max_scans = 3 * 64}));
  CHECK(decode_error(source, {.max_scans = 3 * 64 - 1}).kind == ErrorKind::too_large);
  const Caught error = decode_error(source);
  CHECK(error.kind == ErrorKind::too_large);
  contains(error, "a progressive JPEG must have at most 100 scans");
}

TEST_CASE("images: JPEG kinds whose pixels could differ are unsupported") {
  const Caught arithmetic = decode_error(encode_jpeg({.arithmetic = true}));
  CHECK(arithmetic.kind == ErrorKind::unsupported);
  contains(arithmetic, "this kind of JPEG is not supported (arithmetic coding)");
  const Caught unfinished = decode_error(encode_jpeg({.dc_only = true}));
  CHECK(unfinished.kind == ErrorKind::unsupported);
  contains(unfinished, "ends before all coefficients are complete");

  Buffer twelve_bits = encode_jpeg();
  const std::byte frame[] = {std::byte{0xFF}, std::byte{0xC0}};
  const auto at = std::search(twelve_bits.begin(), twelve_bits.end(), frame, frame + 2);
  REQUIRE(at != twelve_bits.end());
  at[4] = std::byte{12};
  CHECK(decode_error(twelve_bits).kind == ErrorKind::unsupported);
  at[4] = std::byte{8};
  at[1] = std::byte{0xC3};  // lossless
  CHECK_THROWS_AS(decode(twelve_bits), ImageError);
}

TEST_CASE("images: PNG checksums and the end are checked") {
  Buffer png = encode_png({}, pattern);
  png[png.size() - 1] ^= std::byte{1};  // of IEND
  const Caught error = decode_error(png);
  CHECK(error.kind == ErrorKind::damaged);
  contains(error, "the PNG data is damaged or truncated (IEND: CRC error)");
}

TEST_CASE("images: errors name subject, rule, received and remedy") {
  contains(decode_error(text("GIF89a...")),
           "x.jpg: not a JPEG or PNG image (looks like GIF); convert it first");
  contains(decode_error({}), "x.jpg: the file is empty");
  contains(decode_error(text("abcdef")), "(begins with bytes 61 62 63 64)");
  Buffer cut = encode_jpeg();
  cut.resize(cut.size() - 10);
  contains(decode_error(cut),
           "x.jpg: the JPEG data is damaged or truncated (premature end of JPEG file)");
  CHECK(decode_error(cut).kind == ErrorKind::damaged);
  CHECK(decode_error(text("GIF89a...")).kind == ErrorKind::unsupported);
}

TEST_CASE("images: kinds are told by their first bytes") {
  const auto kind = [](std::string_view content) {
    return encoded_kind(std::as_bytes(std::span(content.data(), content.size())));
  };
  using namespace std::string_view_literals;
  CHECK(encoded_kind(encode_jpeg()) == "JPEG");
  CHECK(encoded_kind(encode_png({}, pattern)) == "PNG");
  CHECK(kind("GIF87a") == "GIF");
  CHECK(kind("RIFF\0\0\0\0WEBP"sv) == "WebP");
  CHECK(kind("BM....") == "BMP");
  CHECK(kind("%PDF-1.7") == "PDF");
  CHECK(kind("II*\0"sv) == "TIFF");
  CHECK(kind("\0\0\0\x1c"
             "ftypavif"sv) == "AVIF");
  CHECK(kind("\xEF\xBB\xBF \n<!DocType HTML>") == "HTML");
  CHECK(kind("<?xml version='1.0'?><svg>") == "SVG");
  CHECK(kind("\x89PNG\n\x1a\n") == "a PNG file that was transferred as text");
  CHECK(kind("") == "");
  CHECK(kind("hello") == "");
}

TEST_CASE("images: files are read, whatever their name says") {
  const TemporaryFolder folder;
  const auto path = folder.write("really_a.png", encode_jpeg({.value = 128}));
  CHECK(decode_file(path).width == 13);
  const auto error = error_of([&] { decode_file(path, {.max_file_bytes = 100}); });
  CHECK(error.kind == ErrorKind::too_large);
  contains(error, "an image file must have at most 100 bytes");
  const auto gif = folder.write("cat.jpg", text("GIF89a"));
  contains(error_of([&] { decode_file(gif); }), gif.string() + ": not a JPEG or PNG image");
}

TEST_CASE("images: what is no readable file is an io error") {
  const TemporaryFolder folder;
  const auto missing = error_of([&] { decode_file(folder.path / "none.jpg"); });
  CHECK(missing.kind == ErrorKind::io);
  contains(missing, "none.jpg: cannot read the file (No such file or directory)");
  const auto directory = error_of([&] { decode_file(folder.path); });
  CHECK(directory.kind == ErrorKind::io);
  contains(directory, "it is a folder");
  const auto pipe = folder.path / "pipe";  // opening it would wait for a writer
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  contains(error_of([&] { decode_file(pipe); }), "it is not a regular file");
}

TEST_CASE("images: many threads decode the same bytes to the same pixels") {
  const Buffer jpeg = encode_jpeg({.progressive = true});
  const Buffer png = encode_png({.interlaced = true}, pattern);
  const Buffer broken(jpeg.begin(), jpeg.end() - 20);
  const auto jpeg_pixels = decode(jpeg).rgb;
  const auto png_pixels = decode(png).rgb;
  std::vector<int> wrong(8, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        wrong[t] += decode(jpeg).rgb != jpeg_pixels;
        wrong[t] += decode(png).rgb != png_pixels;
        try {
          decode(broken);
          ++wrong[t];
        } catch (const ImageError&) {
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(8, 0));
}
