// Rounding as convert_avx512bf16.cc does, whole lines of which are written past the caches.
#include <immintrin.h>

#include "kernels/cpu/update_levels.h"

namespace weft::cpu {
namespace {
#define WEFT_OWN_BF16

inline void round_past_caches(const float* x, bfloat16* y, int64_t n) {
  constexpr int64_t kLanes = 16, kLine = 2 * kLanes;
  int64_t i = 0;
  if (reinterpret_cast<uintptr_t>(y) % 64 == 0) {
    for (; i + kLine <= n; i += kLine) {
      const __m512bh line =
          _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + kLanes), _mm512_loadu_ps(x + i));
      _mm512_stream_si512(reinterpret_cast<__m512i*>(y + i),
                          reinterpret_cast<const __m512i&>(line));
    }
  }
  for (; i < n; i += kLanes) {
    const auto mask = static_cast<__mmask16>(n - i >= kLanes ? 0xFFFFU : (1U << (n - i)) - 1U);
    const __m256bh some = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i));
    _mm256_mask_storeu_epi16(y + i, mask, reinterpret_cast<const __m256i&>(some));
  }
}
// Such writes are not ordered with others.
inline void finish_rounding() { _mm_sfence(); }

#include "kernels/cpu/update_body.h"
}  // namespace

extern const UpdateKernels update_avx512bf16 = kTable;

}  // namespace weft::cpu
