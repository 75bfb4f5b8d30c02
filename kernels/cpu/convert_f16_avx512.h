// float16 by AVX-512, for the levels that have it; included inside their namespaces.

constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

inline __mmask16 first_of(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFFU : (1U << count) - 1U);
}

inline void widen_f16(const float16* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_of(n - i);
    _mm512_mask_storeu_ps(y + i, mask,
                          _mm512_maskz_cvtph_ps(mask, _mm256_maskz_loadu_epi16(mask, x + i)));
  }
}

inline void round_f16(const float* x, float16* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_of(n - i);
    const __m512 wide = _mm512_maskz_loadu_ps(mask, x + i);
    _mm256_mask_storeu_epi16(y + i, mask, _mm512_maskz_cvtps_ph(mask, wide, kNearest));
  }
}
