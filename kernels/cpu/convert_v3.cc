// float16 by the instructions of F16C.
#include <immintrin.h>

#include "kernels/cpu/convert_levels.h"

namespace weft::cpu {
namespace {

constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

void widen_f16(const float16* x, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i));
    _mm256_storeu_ps(y + i, _mm256_cvtph_ps(half));
  }
  for (; i < n; ++i) y[i] = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(x[i].bits)));
}

void round_f16(const float* x, float16* y, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), kNearest);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), half);
  }
  for (; i < n; ++i) {
    const int half = _mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x[i]), kNearest));
    y[i].bits = static_cast<uint16_t>(half);
  }
}

#define WEFT_OWN_F16
#include "kernels/cpu/convert_body.h"
}  // namespace

extern const ConvertKernels convert_v3 = kTable;

}  // namespace weft::cpu
