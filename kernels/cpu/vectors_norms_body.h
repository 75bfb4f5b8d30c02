// The loops of the norms; included by vectors_body.h. A row is handled whole, so its lanes and its
// tail are the same wherever it lies.

template <typename T>
T extreme(bool largest, const T* x, int64_t n) {
  T best = x[0];
  int unordered = 0;
  if (largest) {
#pragma omp simd reduction(max : best) reduction(| : unordered)
    for (int64_t i = 0; i < n; ++i) {
      best = x[i] > best ? x[i] : best;
      unordered |= x[i] != x[i] ? 1 : 0;
    }
  } else {
#pragma omp simd reduction(min : best) reduction(| : unordered)
    for (int64_t i = 0; i < n; ++i) {
      best = x[i] < best ? x[i] : best;
      unordered |= x[i] != x[i] ? 1 : 0;
    }
  }
  return unordered != 0 ? T(__builtin_nanf("")) : best;
}

template <typename T>
T squares_around(const T* x, T mean, int64_t n) {
  const auto square = [=](const auto& v) { return (v - mean) * (v - mean); };
  return sum_over<T>(n, square, x);
}

template <typename T>
void gradient_sums(const T* x, const T* dy, T mean, T rstd, int64_t n, T* sum_dy, T* sum_hat) {
  T total = 0, along = 0;
#pragma omp simd reduction(+ : total, along)
  for (int64_t i = 0; i < n; ++i) {
    total += dy[i];
    along += dy[i] * ((x[i] - mean) * rstd);
  }
  *sum_dy = total;
  *sum_hat = along;
}

template <typename T>
void affine(const T* x, T shift, T factor, T offset, T* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - shift) * factor + offset;
}

template <typename T>
void norm_gradient(const T* x, const T* dy, T factor, T mean, T slope, T offset, T* dx, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) dx[i] = factor * dy[i] + ((x[i] - mean) * slope + offset);
}
