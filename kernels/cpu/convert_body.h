// The loops of convert.h. Included once by each convert_*.cc, inside a namespace of its own, with
// that file's instruction set; nothing here may call an inline function of another header, whose
// code the linker would share between the levels. Files that define WEFT_OWN_BF16 or WEFT_OWN_F16
// bring conversions by intrinsics of their own.

inline float widened(bfloat16 x) { return __builtin_bit_cast(float, uint32_t{x.bits} << 16); }

#ifndef WEFT_OWN_BF16
#include "kernels/cpu/round_bf16_body.h"

inline void add_bf16(const bfloat16* x, bfloat16* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i].bits = rounded(widened(y[i]) + widened(x[i]));
}
#endif

#ifndef WEFT_OWN_F16
inline void widen_f16(const float16* x, float* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t half = x[i].bits, sign = (half & 0x8000U) << 16, size = half & 0x7FFFU;
    const uint32_t normal = (size << 13) + 0x38000000U, special = (size << 13) | 0x7F800000U;
    const float small = static_cast<float>(static_cast<int>(size)) * 0x1p-24F;
    uint32_t word = size >= 0x7C00U ? special : normal;
    word = size < 0x400U ? __builtin_bit_cast(uint32_t, small) : word;
    y[i] = __builtin_bit_cast(float, word | sign);
  }
}

inline void round_f16(const float* x, float16* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t word = __builtin_bit_cast(uint32_t, x[i]), size = word & 0x7FFFFFFFU;
    const uint32_t normal = (size + 0xFFFU + (size >> 13 & 1U) - 0x38000000U) >> 13;
    const float sum = __builtin_bit_cast(float, size) + 0.5F;
    const uint32_t small = __builtin_bit_cast(uint32_t, sum) - 0x3F000000U;
    uint32_t half = size < 0x38800000U ? small : normal;
    half = size >= 0x477FF000U ? 0x7C00U : half;
    half = size > 0x7F800000U ? 0x7E00U | (size >> 13 & 0x3FFU) : half;
    y[i].bits = static_cast<uint16_t>(half | (word >> 16 & 0x8000U));
  }
}
#endif

// Whoever computes with halves reads them here, a row or a piece of one after the other: what comes
// next is fetched into the second-level cache.
inline void widen_bf16(const bfloat16* x, float* y, int64_t n) {
  constexpr int64_t kGroup = 64, kLine = 32, kAhead = 1024;
  int64_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    for (int64_t k = 0; k < kGroup; k += kLine) __builtin_prefetch(x + i + kAhead + k, 0, 2);
#pragma omp simd
    for (int64_t k = i; k < i + kGroup; ++k) y[k] = widened(x[k]);
  }
#pragma omp simd
  for (int64_t k = i; k < n; ++k) y[k] = widened(x[k]);
}

inline void add_bf16_f32(const bfloat16* x, float* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += widened(x[i]);
}

constexpr ConvertKernels kTable{widen_bf16, round_bf16, widen_f16,
                                round_f16,  add_bf16,   add_bf16_f32};
