// Gradients of norms of rows longer than a page, with AVX-512: what gamma and the sums that become
// dgamma and dbeta take of the nearest cache leaves no room for two such rows. So sums are taken of
// several rows, which stay in the second-level cache, and what is written goes down all of them by
// strips of columns. Included by norms_body.h; rules as there.

template <typename S>
inline bool by_strips(const S*, int64_t n) {
  return n * int64_t{sizeof(S)} > 4096;
}

// Where sums of two rows that come from memory stand, the lines 3 KiB further are asked for, in the
// nearest cache, as nothing else is under way: the processor itself does not go on beyond a page.
template <typename S>
struct LinesAhead {
  const S *x, *dy;
  bool far;
  void operator()(int64_t i) const {  // once a group
    constexpr int64_t kAhead = 3072 / sizeof(S);
    constexpr int kLine = 64 / static_cast<int>(sizeof(S));
    if (!far) return;
    for (int line = 0; line < kGroup; line += kLine) {
      fetch_nearest(x + i + kAhead + line);
      fetch_nearest(dy + i + kAhead + line);
    }
  }
};

// Rows of a norm's gradient
//   dx = factor dy gamma - offset - (x - center) slope
// (RMS norm: kCentered is false, center and offset are 0; a 0 is subtracted all the same, as of a
// difference of two products either may be fused), one after the other in memory.
template <typename S, typename T>
struct GradientRows {
  static constexpr int64_t kMost = 8;  // at once, which a second-level cache has room for
  static int64_t at_once(int64_t n) {
    const int64_t rows = (int64_t{256} << 10) / (2 * n * int64_t{sizeof(S)});
    return rows < 1 ? 1 : rows < kMost ? rows : kMost;
  }
  const S *x, *dy;
  const T* gamma;
  int64_t rows, n;
  S* dx;
  T *dgamma, *dbeta;
  T center[kMost], factor[kMost], offset[kMost], slope[kMost];
};

// The first elements of a vector, what is left of a row.
struct FirstOfVector {
  int64_t count;
  template <int kBits = 16>
  auto mask() const {
    return static_cast<std::conditional_t<kBits == 16, __mmask16, __mmask8>>((1 << count) - 1);
  }
  Lanes<float> at(const float* x) const { return _mm512_maskz_loadu_ps(mask(), x); }
  Lanes<double> at(const double* x) const { return _mm512_maskz_loadu_pd(mask<8>(), x); }
  Lanes<float> at(const bfloat16* x) const {
    const __m512i words = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask(), x));
    return reinterpret_cast<Lanes<float>>(_mm512_slli_epi32(words, 16));
  }
  void put(bool, float* y, const Lanes<float>& values) const {
    _mm512_mask_storeu_ps(y, mask(), values);
  }
  void put(bool, double* y, const Lanes<double>& values) const {
    _mm512_mask_storeu_pd(y, mask<8>(), values);
  }
  void put(bool, bfloat16* y, const Lanes<float>& values) const {
    _mm256_mask_storeu_epi16(y, mask(), reinterpret_cast<__m256i>(rounded_in_order(values)));
  }
};

// kCount vectors of columns (one of `by`, more than one of InVectors) of all these rows, from
// column i on: gamma and the sums that become dgamma and dbeta stay in registers.
template <bool kPast, bool kCentered, int kCount, typename By, typename S, typename T>
inline void gradient_columns(const By by, const GradientRows<S, T>& of, int64_t i) {
  constexpr int64_t kStep = kLanesOf<T>;
  const T *const gamma = of.gamma + i, *const dgamma = of.dgamma + i,
                 *const dbeta = kCentered ? of.dbeta + i : nullptr;
  Lanes<T> weight[kCount], to_gamma[kCount], to_beta[kCount];
  for (int k = 0; k < kCount; ++k) {
    weight[k] = by.at(gamma + k * kStep);
    to_gamma[k] = by.at(dgamma + k * kStep);
    if (kCentered) to_beta[k] = by.at(dbeta + k * kStep);
  }
  // Copies: what is written might else be any of it.
  const int64_t n = of.n, rows = of.rows;
  const S *x = of.x + i, *dy = of.dy + i;
  S* dx = of.dx + i;
  for (int64_t row = 0; row < rows; ++row, x += n, dy += n, dx += n) {
    const T center = of.center[row], factor = of.factor[row], offset = of.offset[row],
            slope = of.slope[row];
    Lanes<T> out[kCount];
    const auto compute = [&](auto from, int k) {
      const Lanes<T> up = from.at(dy + k * kStep), scaled = up * factor;
      Lanes<T> apart = from.at(x + k * kStep);
      if (kCentered) apart -= center;
      out[k] = scaled * weight[k] - offset - apart * slope;
      to_gamma[k] += scaled * apart;
      if (kCentered) to_beta[k] += up;
    };
    if constexpr (kCount % 2 == 0) {
      [&]<int... k>(std::integer_sequence<int, k...>) { (compute(OfTwo<k % 2>(), k), ...); }
      (std::make_integer_sequence<int, kCount>());
    } else {
      compute(by, 0);
    }
    if constexpr (sizeof(S) == sizeof(bfloat16) && kCount % 2 == 0) {
      for (int k = 0; k < kCount; k += 2) {
        WholeLanes::put(kPast, dx + k * kStep, rounded_in_order(out[k], out[k + 1]));
      }
    } else {
      for (int k = 0; k < kCount; ++k) by.put(kPast, dx + k * kStep, out[k]);
    }
  }
  for (int k = 0; k < kCount; ++k) {
    by.put(false, of.dgamma + i + k * kStep, to_gamma[k]);
    if (kCentered) by.put(false, of.dbeta + i + k * kStep, to_beta[k]);
  }
}
template <bool kPast, bool kCentered, typename S, typename T>
inline void gradient_strips(const GradientRows<S, T>& of) {
  constexpr int kVectors = 4;
  constexpr int64_t kLanes = kLanesOf<T>;
  int64_t i = 0;
  for (; i + kVectors * kLanes <= of.n; i += kVectors * kLanes) {
    gradient_columns<kPast, kCentered, kVectors>(InVectors(), of, i);
  }
  for (; i + kLanes <= of.n; i += kLanes) {
    gradient_columns<false, kCentered, 1>(InVectors(), of, i);
  }
  if (i < of.n) gradient_columns<false, kCentered, 1>(FirstOfVector{of.n - i}, of, i);
}
// past: dx goes past the caches, if its addresses allow it.
template <bool kCentered, typename S, typename T>
inline void write_gradient(bool past, const GradientRows<S, T>& of) {
  if (by_lines(past, of.dx) && (of.rows == 1 || of.n * int64_t{sizeof(S)} % kVectorBytes == 0)) {
    gradient_strips<true, kCentered>(of);
  } else {
    gradient_strips<false, kCentered>(of);
  }
}

// terms(row, next, x, dy, of, k) fills in those of a row, the k-th of the ones at once, whose
// elements start at x and dy; its sums call next.
template <bool kCentered, typename S, typename T, typename Terms>
inline void gradient_by_strips(GradientRows<S, T> of, bool past, const Terms& terms) {
  const int64_t rows = of.rows, at_once = of.at_once(of.n);
  for (int64_t first = 0; first < rows; first += at_once) {
    of.rows = rows - first < at_once ? rows - first : at_once;
    for (int64_t k = 0; k < of.rows; ++k) {
      const S *const x = of.x + k * of.n, *const dy = of.dy + k * of.n;
      terms(first + k, LinesAhead<S>{x, dy, past}, x, dy, of, k);
    }
    write_gradient<kCentered>(past, of);
    of.x += at_once * of.n, of.dy += at_once * of.n, of.dx += at_once * of.n;
  }
}

// dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy gamma
template <typename S, typename T>
void layer_norm_backward_by_strips(const S* x, const S* dy, const T* gamma, const T* mean,
                                   const T* rstd, bool past, int64_t rows, int64_t n, S* dx,
                                   T* dgamma, T* dbeta) {
  const GradientRows<S, T> all = {x, dy, gamma, rows, n, dx, dgamma, dbeta, {}, {}, {}, {}};
  gradient_by_strips<true>(all, past,
                           [=](int64_t row, const auto& next, const S* x_row, const S* dy_row,
                               GradientRows<S, T>& of, int64_t k) {
                             const T center = of.center[k] = mean[row],
                                     r = of.factor[k] = rstd[row];
                             T sum_g = 0, along = 0;
                             norm_sums(next, x_row, dy_row, gamma, center, r, n, &sum_g, &along);
                             of.offset[k] = r * (sum_g / static_cast<T>(n));
                             of.slope[k] = r * (along / static_cast<T>(n)) * r;
                           });
}

// dx = rstd (g - xhat mean(g xhat)), g = dy gamma, xhat = x rstd
template <typename S, typename T>
void rms_norm_backward_by_strips(const S* x, const S* dy, const T* gamma, const T* rstd, bool past,
                                 int64_t rows, int64_t n, S* dx, T* dgamma) {
  const GradientRows<S, T> all = {x, dy, gamma, rows, n, dx, dgamma, nullptr, {}, {}, {}, {}};
  gradient_by_strips<false>(all, past,
                            [=](int64_t row, const auto& next, const S* x_row, const S* dy_row,
                                GradientRows<S, T>& of, int64_t k) {
                              const auto term = [](const auto& up, const auto& weight,
                                                   const auto& v) { return up * weight * v; };
                              const T r = of.factor[k] = rstd[row];
                              const T along =
                                  sum_fetching<T>(n, next, term, dy_row, gamma, x_row) * r;
                              of.slope[k] = r * (along / static_cast<T>(n)) * r;
                            });
}
