// bfloat16 by the instruction of AVX512_BF16, which rounds to nearest even and takes subnormal
// floats as zero.
#include <immintrin.h>

#include "kernels/cpu/convert_levels.h"

namespace weft::cpu {
namespace {
#define WEFT_OWN_F16
#define WEFT_OWN_BF16
#include "kernels/cpu/convert_f16_avx512.h"

inline void store(bfloat16* y, __mmask16 mask, __m512 wide) {
  const __m256bh narrow = _mm512_cvtneps_pbh(wide);
  _mm256_mask_storeu_epi16(y, mask, reinterpret_cast<const __m256i&>(narrow));
}

inline __m512 load(const bfloat16* x, __mmask16 mask) {
  const __m512i words = _mm512_maskz_cvtepu16_epi32(mask, _mm256_maskz_loadu_epi16(mask, x));
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(mask, words, 16));
}

void round_bf16(const float* x, bfloat16* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_of(n - i);
    store(y + i, mask, _mm512_maskz_loadu_ps(mask, x + i));
  }
}

void add_bf16(const bfloat16* x, bfloat16* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_of(n - i);
    store(y + i, mask, _mm512_add_ps(load(y + i, mask), load(x + i, mask)));
  }
}

#include "kernels/cpu/convert_body.h"
}  // namespace

extern const ConvertKernels convert_avx512bf16 = kTable;

}  // namespace weft::cpu
