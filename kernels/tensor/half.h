// The two half-width floating types as values: stored in 16 bits, computed with in float.
//
//   bfloat16  8 bits of exponent, 7 of fraction: a float's range, 2 to 3 digits
//   float16   IEEE 754 binary16: 5 bits of exponent, 10 of fraction; largest 65504
//
// Conversions from float round to nearest, ties to even; what is too large becomes infinity,
// NaN stays NaN (quiet, its sign kept), subnormal results are kept. Conversions to float are exact.
// Thread safety: values.
#pragma once

#include <bit>
#include <cstdint>

namespace weft {

struct bfloat16 {
  uint16_t bits;

  bfloat16() = default;
  explicit constexpr bfloat16(float value) : bits(round(std::bit_cast<uint32_t>(value))) {}
  explicit constexpr bfloat16(double value) : bfloat16(static_cast<float>(value)) {}
  explicit constexpr bfloat16(int64_t value) : bfloat16(static_cast<float>(value)) {}
  explicit constexpr bfloat16(int32_t value) : bfloat16(static_cast<float>(value)) {}
  explicit constexpr bfloat16(uint8_t value) : bfloat16(static_cast<float>(value)) {}
  constexpr operator float() const { return std::bit_cast<float>(uint32_t{bits} << 16); }

  static constexpr uint16_t round(uint32_t word) {
    if ((word & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<uint16_t>(word >> 16 | 0x40U);
    return static_cast<uint16_t>((word + 0x7FFFU + (word >> 16 & 1U)) >> 16);
  }
};

struct float16 {
  uint16_t bits;

  float16() = default;
  explicit constexpr float16(float value) : bits(round(value)) {}
  explicit constexpr float16(double value) : float16(static_cast<float>(value)) {}
  explicit constexpr float16(int64_t value) : float16(static_cast<float>(value)) {}
  explicit constexpr float16(int32_t value) : float16(static_cast<float>(value)) {}
  explicit constexpr float16(uint8_t value) : float16(static_cast<float>(value)) {}
  constexpr operator float() const { return widen(bits); }

  static constexpr float widen(uint16_t half) {
    const uint32_t sign = uint32_t{half & 0x8000U} << 16;
    const uint32_t exponent = half >> 10 & 0x1FU, fraction = half & 0x3FFU;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000U | fraction << 13);
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
    const float small = static_cast<float>(fraction) * 0x1p-24F;  // subnormal or zero, exact
    return sign != 0 ? -small : small;
  }
  static constexpr uint16_t round(float value) {
    const uint32_t word = std::bit_cast<uint32_t>(value), size = word & 0x7FFFFFFFU;
    const uint32_t sign = word >> 16 & 0x8000U;
    if (size > 0x7F800000U) return static_cast<uint16_t>(sign | 0x7E00U | (size >> 13 & 0x3FFU));
    if (size >= 0x477FF000U) return static_cast<uint16_t>(sign | 0x7C00U);  // 65520 and more
    if (size < 0x38800000U) {  // below 2^-14: the sum's last bit is 2^-24, that of a subnormal
      const float sum = std::bit_cast<float>(size) + 0.5F;
      return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - 0x3F000000U));
    }
    const uint32_t rounded = size + 0xFFFU + (size >> 13 & 1U);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
  }
};

static_assert(sizeof(bfloat16) == 2 && sizeof(float16) == 2);

}  // namespace weft
