// Images of every layout as what preprocessing takes: uint8 [1, 3, H, W] RGB.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <memory>

#include "layout.h"
#include "model_impl.h"

namespace convship {

int channels_of(PixelFormat format) {
  switch (format) {
    case PixelFormat::rgb:
    case PixelFormat::bgr:
      return 3;
    case PixelFormat::rgba:
    case PixelFormat::bgra:
      return 4;
    case PixelFormat::gray:
      return 1;
  }
  throw Error(ErrorCode::usage, "the pixel format must be rgb, bgr, rgba, bgra or gray, got " +
                                    std::to_string(static_cast<int>(format)));
}

namespace runtime {
namespace {

// More than any sensible image; sizes below it cannot overflow.
constexpr std::int64_t kMaxSide = 1 << 20;

// Returns the bytes from row to row.
std::ptrdiff_t row_step(const PixelView& view, int channels, const std::string& subject) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::usage, subject + ": " + what);
  };
  if (view.height < 1 || view.width < 1 || view.height > kMaxSide || view.width > kMaxSide) {
    fail("height and width must be 1 to " + std::to_string(kMaxSide) + ", got " +
         std::to_string(view.height) + " and " + std::to_string(view.width));
  }
  if (view.data == nullptr) fail("data must point at the top left pixel, got a null pointer");
  const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(view.width) * channels;
  std::ptrdiff_t bytes = 0;
  if (__builtin_mul_overflow(view.row_stride, view.height, &bytes) || bytes > kMostBytes ||
      bytes < -kMostBytes) {
    fail("there is no memory of " + std::to_string(view.height) + " rows " +
         std::to_string(view.row_stride) + " bytes apart");
  }
  if (view.row_stride > -row && view.row_stride < row && view.row_stride != 0) {
    fail("row_stride must be at least width * channels = " + std::to_string(row) +
         " bytes, or 0 for rows without padding, got " + std::to_string(view.row_stride));
  }
  return view.row_stride != 0 ? view.row_stride : row;
}

}  // namespace

at::Tensor pixels_of(images::Image image) {
  // [H, W, 3] rows as a [1, 3, H, W] view; the vector lives in the deleter.
  auto owner = std::make_shared<std::vector<std::uint8_t>>(std::move(image.rgb));
  return at::from_blob(
             owner->data(), {image.height, image.width, 3},
             [owner](void*) mutable { owner.reset(); }, at::kByte)
      .permute({2, 0, 1})
      .unsqueeze(0)
      .contiguous();
}

at::Tensor pixels_of(const PixelView& view, const std::string& subject) {
  const int channels = channels_of(view.format);
  const bool swapped = view.format == PixelFormat::bgr || view.format == PixelFormat::bgra;
  // Of each plane, which byte of a pixel it takes.
  const int bytes[3] = {swapped ? 2 : 0, channels == 1 ? 0 : 1, channels == 1 || swapped ? 0 : 2};
  const std::ptrdiff_t step = row_step(view, channels, subject);
  at::Tensor planes = at::empty({1, 3, view.height, view.width}, at::kByte);
  std::uint8_t* out = planes.mutable_data_ptr<std::uint8_t>();
  for (const int byte : bytes) {
    const std::uint8_t* row = view.data + byte;
    for (std::int64_t y = 0; y < view.height; ++y, row += step) {
      for (std::int64_t x = 0; x < view.width; ++x) *out++ = row[x * channels];
    }
  }
  return planes;
}

}  // namespace runtime
}  // namespace convship
