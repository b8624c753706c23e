#include "layout.h"

#include <algorithm>

#include "model_impl.h"

namespace convship::runtime {

std::int64_t checked_extent(DType dtype,
                            std::span<const std::int64_t> shape,
                            std::span<const std::int64_t> strides,
                            const std::string& subject) {
  const auto fail = [&](const std::string& what) { throw Error(ErrorCode::usage, subject + what); };
  const auto too_large = [&] {
    fail("there is no memory of this size: " + describe(dtype, shape));
  };
  const auto item = static_cast<std::int64_t>(size_of(dtype));
  std::int64_t bytes = item;
  for (const std::int64_t size : shape) {
    if (size < 0) fail("sizes must not be negative, got " + describe(dtype, shape));
    if (__builtin_mul_overflow(bytes, size, &bytes)) too_large();
  }
  if (bytes > kMostBytes) too_large();
  if (strides.empty()) return bytes;
  if (strides.size() != shape.size()) {
    fail("there must be a stride for each of the " + std::to_string(shape.size()) +
         " dimensions, got " + std::to_string(strides.size()));
  }
  std::int64_t extent = item;
  for (std::size_t i = 0; i < strides.size(); ++i) {
    if (strides[i] < 0) fail("strides must not be negative; LibTorch has no such tensors");
    std::int64_t step = 0;
    if (__builtin_mul_overflow(strides[i], std::max<std::int64_t>(shape[i] - 1, 0), &step) ||
        __builtin_mul_overflow(step, item, &step) ||
        __builtin_add_overflow(extent, step, &extent) || extent > kMostBytes) {
      too_large();
    }
  }
  return bytes == 0 ? 0 : extent;
}

}  // namespace convship::runtime
