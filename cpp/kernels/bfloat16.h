// bfloat16 as memory holds it: the upper half of a float.
#pragma once

#include <cstdint>
#include <cstring>

namespace convship::kernels {

struct BFloat16 {
  uint16_t bits;
};

inline float to_float(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// To the nearest, ties to even; NaN stays NaN.
inline BFloat16 to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (value != value) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

// The type that values of type T are summed in, and how they get there and back.
template <typename T>
struct Accumulator {
  using Type = T;
  static T widen(T value) { return value; }
  static T narrow(T value) { return value; }
};
template <>
struct Accumulator<BFloat16> {
  using Type = float;
  static float widen(BFloat16 value) { return to_float(value); }
  static BFloat16 narrow(float value) { return to_bfloat16(value); }
};
template <typename T>
using AccumulatorOf = typename Accumulator<T>::Type;

}  // namespace convship::kernels
