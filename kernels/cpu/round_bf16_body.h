// bfloat16 without an instruction for it: of convert_body.h, inside its namespace.

inline uint16_t rounded(float x) {
  const uint32_t word = __builtin_bit_cast(uint32_t, x);
  const uint32_t nearest = (word + 0x7FFFU + (word >> 16 & 1U)) >> 16;
  return static_cast<uint16_t>((word & 0x7FFFFFFFU) > 0x7F800000U ? word >> 16 | 0x40U : nearest);
}

inline void round_bf16(const float* x, bfloat16* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i].bits = rounded(x[i]);
}
