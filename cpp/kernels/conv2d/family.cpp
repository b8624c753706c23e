#include "kernels/conv2d/family.h"

namespace convship::kernels::conv2d {

const char* family_name(Family family) {
  switch (family) {
    case Family::plain:
      return "plain";
    case Family::channels:
      return "channels";
    case Family::columns:
      return "columns";
    case Family::winograd_2x2_3x3:
      return "winograd 2x2, 3x3";
    case Family::winograd_4x4_3x3:
      return "winograd 4x4, 3x3";
    case Family::winograd_2x2_5x5:
      return "winograd 2x2, 5x5";
  }
  return "unknown";
}

Family choose(const Geometry& g, const Choice& choice) {
  // Buffers hold a window's rows and the columns beside a row; larger windows
  // are no case for speed.
  constexpr int64_t kLargestWindow = 64;
  const bool padded = g.padding.h > 0 || g.padding.w > 0;
  if (choice.lanes == 0 || (padded && !choice.may_expand) ||
      std::max(g.pool_size.h, g.pool_size.w) > kLargestWindow) {
    return Family::plain;
  }
  return Family::channels;
}

}  // namespace convship::kernels::conv2d
