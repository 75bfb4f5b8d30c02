// The loops of update.h. Included once by each update_v*.cc, inside a namespace of its own; nothing
// here may call an inline function of another header (rows_body.h).

inline void adamw(const AdamWFactors& factors, const float* g, float* m, float* v, float* p,
                  int64_t n) {
  const AdamWFactors f = factors;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float value = g[i] * f.scale;
    const float first = f.beta1 * m[i] + f.rest1 * value;
    const float second = f.beta2 * v[i] + f.rest2 * value * value;
    m[i] = first;
    v[i] = second;
    p[i] = f.keep * p[i] - f.step * first / (__builtin_sqrtf(second) * f.root + f.epsilon);
  }
}

#ifndef WEFT_OWN_BF16
#include "kernels/cpu/round_bf16_body.h"
inline void round_past_caches(const float* x, bfloat16* y, int64_t n) { round_bf16(x, y, n); }
inline void finish_rounding() {}
#endif

void adamw_bf16(const AdamWFactors& factors, const float* g, float* m, float* v, float* p,
                bfloat16* y, int64_t n) {
  constexpr int64_t kPiece = 64, kLine = 16, kAhead = 256;
  const AdamWFactors f = factors;
  int64_t at = 0;
  for (; at + kPiece <= n; at += kPiece) {
    for (int64_t i = at + kAhead; i < at + kAhead + kPiece; i += kLine) {
      __builtin_prefetch(g + i);
      __builtin_prefetch(m + i, 1);
      __builtin_prefetch(v + i, 1);
      __builtin_prefetch(p + i, 1);
    }
    adamw(f, g + at, m + at, v + at, p + at, kPiece);
    round_past_caches(p + at, y + at, kPiece);
  }
  adamw(f, g + at, m + at, v + at, p + at, n - at);
  round_past_caches(p + at, y + at, n - at);
  finish_rounding();
}

// Four parts at once: one sum would wait for each of its additions.
double sum_of_squares(const float* x, int64_t n) {
  const int64_t part = n / 4;
  double a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
  for (int64_t i = 0; i < part; ++i) {
    const double w0 = static_cast<double>(x[i]), w1 = static_cast<double>(x[i + part]);
    const double w2 = static_cast<double>(x[i + 2 * part]),
                 w3 = static_cast<double>(x[i + 3 * part]);
    a += w0 * w0;
    b += w1 * w1;
    c += w2 * w2;
    d += w3 * w3;
  }
  for (int64_t i = 4 * part; i < n; ++i) a += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return (a + b) + (c + d);
}

float largest(const float* x, int64_t n) {
  float most = 0;
  int nans = 0;
#pragma omp simd reduction(max : most) reduction(+ : nans)
  for (int64_t i = 0; i < n; ++i) {
    const float size = x[i] < 0 ? -x[i] : x[i];
    most = size > most ? size : most;
    nans += x[i] != x[i] ? 1 : 0;
  }
  return nans > 0 ? __builtin_nanf("") : most;
}

void cut_squares(const float* x, int64_t n, double first, double second, double* a, double* b) {
  double upper = 0, lower = 0;
#pragma omp simd reduction(+ : upper, lower)
  for (int64_t i = 0; i < n; ++i) {
    const double square = static_cast<double>(x[i]) * static_cast<double>(x[i]);
    const double high = (square + first) - first, rest = square - high;
    upper += high;
    lower += (rest + second) - second;
  }
  *a += upper;
  *b += lower;
}

constexpr UpdateKernels kTable{adamw, adamw_bf16, sum_of_squares, largest, cut_squares};
