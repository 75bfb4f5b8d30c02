// The loops of update.h. Included once by each update_v*.cc, inside a namespace of its own; nothing
// here may call an inline function of another header (rows_body.h).

void adamw(const AdamWFactors& factors, const float* g, float* m, float* v, float* p, int64_t n) {
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

double sum_of_squares(const float* x, int64_t n) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) {
    const double value = static_cast<double>(x[i]);
    total += value * value;
  }
  return total;
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

constexpr UpdateKernels kTable{adamw, sum_of_squares, largest, cut_squares};
