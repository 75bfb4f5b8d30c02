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

inline void split(const float* x, bfloat16* value, bfloat16* low, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t word = __builtin_bit_cast(uint32_t, x[i]);
    const bool nan = (word & 0x7FFFFFFFU) > 0x7F800000U;
    const uint32_t kept = nan ? (word | 0x400000U) & 0xFFFF0000U : word;
    value[i].bits = static_cast<uint16_t>((kept + 0x8000U) >> 16);
    low[i].bits = static_cast<uint16_t>(kept);
  }
}

inline void join(const bfloat16* value, const bfloat16* low, float* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const int32_t difference = static_cast<int16_t>(low[i].bits);
    const uint32_t word = (uint32_t{value[i].bits} << 16) + static_cast<uint32_t>(difference);
    x[i] = __builtin_bit_cast(float, word);
  }
}

void adamw_halves(const AdamWFactors& factors, const float* g, float* m, float* v, bfloat16* value,
                  bfloat16* low, int64_t n) {
  constexpr int64_t kPiece = 64, kLine = 16, kAhead = 256;
  const AdamWFactors f = factors;
  float p[kPiece];
  for (int64_t at = 0; at < n; at += kPiece) {
    for (int64_t i = at + kAhead; i < at + kAhead + kPiece; i += kLine) {
      __builtin_prefetch(g + i);
      __builtin_prefetch(m + i, 1);
      __builtin_prefetch(v + i, 1);
    }
    for (int64_t i = at + kAhead; i < at + kAhead + kPiece; i += 2 * kLine) {
      __builtin_prefetch(value + i, 1);
      __builtin_prefetch(low + i, 1);
    }
    const int64_t count = n - at < kPiece ? n - at : kPiece;
    join(value + at, low + at, p, count);
    adamw(f, g + at, m + at, v + at, p, count);
    split(p, value + at, low + at, count);
  }
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

constexpr UpdateKernels kTable{adamw,          adamw_halves, split,      join,
                               sum_of_squares, largest,      cut_squares};
