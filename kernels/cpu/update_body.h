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

constexpr UpdateKernels kTable{adamw, sum_of_squares};
