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

// The processor itself does not look past a page: this is what it asks for ahead, of each row.
template <typename... Rows>
inline auto fetch_ahead(const Rows*... rows) {
  constexpr int64_t kAhead = 2048;  // elements
  return [=](int64_t i) { (fetch_group(rows + kAhead + i), ...); };
}

template <typename S, typename T = Wide<S>>
void moments(const S* x, int64_t n, T* sum, T* squares) {
  const auto element = [](const auto& v) { return v; };
  *sum = sum_fetching<T>(n, fetch_ahead(x), element, x);
  const T mean = *sum / static_cast<T>(n);
  const auto square = [=](const auto& v) { return (v - mean) * (v - mean); };
  *squares = sum_over<T>(n, square, x);
}

template <typename S, typename T = Wide<S>>
void gradient_sums(const S* x, const S* dy, T mean, T rstd, int64_t n, T* sum_dy, T* sum_hat) {
  constexpr int64_t kPiece = 4096, kLanes = kLanesOf<T>;  // as sum_fetching does
  const auto fetch = fetch_ahead(x, dy);
  double total = 0, along = 0;
  for (int64_t at = 0; at < n; at += kPiece) {
    const int64_t end = n - at < kPiece ? n : at + kPiece;
    Lanes<T> sums[2]{}, hats[2]{};
    const auto take = [&](auto by, int64_t i, int which) {
      const Lanes<T> d = by.at(dy + i);
      sums[which] += d;
      hats[which] += d * ((by.at(x + i) - mean) * rstd);
    };
    int64_t i = at;
    for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
      if (i % kGroup == 0) fetch(i);
      take(OfTwo<0>(), i, 0);
      take(OfTwo<1>(), i + kLanes, 1);
    }
    for (; i + kLanes <= end; i += kLanes) take(InVectors(), i, 0);
    for (int64_t lane = 0; i < end; ++i, ++lane) {
      const T d = OneByOne::at(dy + i);
      sums[0][lane] += d;
      hats[0][lane] += d * ((OneByOne::at(x + i) - mean) * rstd);
    }
    total += static_cast<double>(sum_of_lanes<T>(sums[0] + sums[1]));
    along += static_cast<double>(sum_of_lanes<T>(hats[0] + hats[1]));
  }
  *sum_dy = static_cast<T>(total);
  *sum_hat = static_cast<T>(along);
}

template <typename S, typename T = Wide<S>>
void affine(const S* x, T shift, T factor, T offset, Target<S> y, int64_t n) {
  const auto f = [=](const Lanes<T>& v) { return (v - shift) * factor + offset; };
  map(OfLanes<decltype(f)>{f}, n, written(y), x);
}

template <typename S, typename T = Wide<S>>
void norm_gradient(const S* x, const S* dy, T factor, T mean, T slope, T offset, Target<S> dx,
                   int64_t n) {
  const auto f = [=](const Lanes<T>& v, const Lanes<T>& d) {
    return factor * d + ((v - mean) * slope + offset);
  };
  map(OfLanes<decltype(f)>{f}, n, written(dx), x, dy);
}
