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
void rms_norm(const T* x, const T* gamma, T epsilon, bool past, int64_t n, T* y, T* rstd) {
  const auto square = [](const auto& v) { return v * v; };
  const T squares = sum_over<T, true>(n, square, x);
  const T r = T{1} / sqrt_of(squares / static_cast<T>(n) + epsilon);
  const bool lines = by_lines(past, y);
  for_row<false>(
      n, x, [=](auto by, int64_t i) { by.put(lines, y + i, by.at(x + i) * r * by.at(gamma + i)); });
  *rstd = r;
}

// dx = rstd (g - xhat mean(g xhat)), g = dy gamma, xhat = x rstd; of kRows rows, while as many that
// come after them are fetched into the second-level cache.
template <int kRows, typename T>
void rms_norm_backward_of(const T* x, const T* dy, const T* gamma, const T* rstd, bool past,
                          int64_t n, T* dx, T* dgamma) {
  T mean[kRows] = {};
  for (int row = 0; row < kRows; ++row) {
    const T r = rstd[row];
    const auto term = [=](const auto& up, const auto& weight, const auto& v) {
      return up * weight * (v * r);
    };
    mean[row] = sum_over<T>(n, term, dy + row * n, gamma, x + row * n) / static_cast<T>(n);
  }
  const bool lines = by_lines(past, dx) && n % kLanesOf<T> == 0;
  for_row<false>(n, x, [=](auto by, int64_t i) {
    const auto weight = by.at(gamma + i);
    auto to_gamma = by.at(dgamma + i);
    for (int row = 0; row < kRows; ++row) {
      const int64_t at = row * n + i;
      __builtin_prefetch(x + kRows * n + at, 0, 2);
      __builtin_prefetch(dy + kRows * n + at, 0, 2);
      const auto up = by.at(dy + at), hat = by.at(x + at) * rstd[row];
      by.put(lines, dx + at, rstd[row] * (up * weight - hat * mean[row]));
      to_gamma += up * hat;
    }
    by.at(dgamma + i) = to_gamma;
  });
}
template <typename T>
void rms_norm_backward(const T* x, const T* dy, const T* gamma, const T* rstd, bool past,
                       int64_t rows, int64_t n, T* dx, T* dgamma) {
  by_twos(rows, [=]<int kRows>(int64_t row) {
    const int64_t at = row * n;
    rms_norm_backward_of<kRows>(x + at, dy + at, gamma, rstd + row, past, n, dx + at, dgamma);
  });
}

// A row of nothing but -infinity gives zeros, as softmax does, and NaNs where it holds one.
template <typename T>
void log_softmax(const T* x, bool past, T* y, int64_t n) {
  const T largest = max_over(x, n);
  if (largest == -T(__builtin_inff())) {
    const T nothing = zero_or_nan(x, n);
    for (int64_t i = 0; i < n; ++i) y[i] = nothing;
    return;
  }
  const T total = sum_of_exp(x, largest, n, [](auto, int64_t, const auto& e) { return e; });
  const T log_total = static_cast<T>(__builtin_log(static_cast<double>(total)));
  const bool lines = by_lines(past, y);
  for_row<false>(n, x, [=](auto by, int64_t i) {
    by.put(lines, y + i, (by.at(x + i) - largest) - log_total);
  });
}

template <typename T>
void log_softmax_backward(const T* y, const T* dy, T* dx, int64_t n) {
  const T total = sum_over<T>(
      n, [](const auto& v) { return v; }, dy);
  int64_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    fetch_group(y + n + i);
    fetch_group(dy + n + i);
    if constexpr (kVectorMath<T>) {
      for (int64_t k = i; k < i + kGroup; k += kLanesOf<T>) {
        lanes_at(dx + k) = lanes_at(dy + k) - exp_below_of(lanes_at(y + k)) * total;
      }
    } else {
#pragma omp simd
      for (int64_t k = i; k < i + kGroup; ++k) dx[k] = dy[k] - exp_of(y[k]) * total;
    }
  }
  if constexpr (kVectorMath<T>) {
    constexpr int64_t kLanes = kLanesOf<T>;
    for (; i < n; i += kLanes) {
      const int64_t count = n - i < kLanes ? n - i : kLanes;
      T rest[2][kLanes] = {};
      copy_row(y + i, rest[0], count);
      copy_row(dy + i, rest[1], count);
      lanes_at(rest[1]) = lanes_at(rest[1]) - exp_below_of(lanes_at(rest[0])) * total;
      copy_row(rest[1], dx + i, count);
    }
  } else {
#pragma omp simd
    for (int64_t k = i; k < n; ++k) dx[k] = dy[k] - exp_of(y[k]) * total;
  }
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
