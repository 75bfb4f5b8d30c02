// The loops of norms.h. Included once by each norms_*.cc, inside a namespace of its own, with that
// file's instruction set; nothing here may call an inline function of another header, whose code
// the linker would share between the levels. A row is handled whole, so its lanes and its tail are
// the same wherever it lies.
//
// Numerical policy: rows of float and of halves accumulate in float over the vector's lanes; see
// math_body.h.

#include "kernels/cpu/whole_rows_body.h"

// f.operator()<count>(row) over rows: two at a time if so asked, then one.
template <typename F>
inline void by_rows(bool two, int64_t rows, const F& f) {
  int64_t row = 0;
  if (two) {
    for (; row + 2 <= rows; row += 2) f.template operator()<2>(row);
  }
  for (; row < rows; ++row) f.template operator()<1>(row);
}
// Whether the nearest cache has room for two rows beside what else they take.
template <typename S>
inline bool near_each_other(const S*, int64_t n) {
  return n * int64_t{sizeof(S)} <= 8192;
}
// Whether rows from memory go one after the other: without AVX-512 those of more than a page come
// faster so.
template <typename S>
inline bool one_by_one(bool past, const S*, int64_t n) {
  return kVectorBytes < 64 && past && n * int64_t{sizeof(S)} > 4096;
}

#ifdef __AVX512F__
constexpr int64_t kHalves = kLanesOf<bfloat16>;
// The first n of a vector's.
inline __mmask32 first_halves(int64_t n) {
  return n < kHalves ? static_cast<__mmask32>((uint64_t{1} << n) - 1) : ~__mmask32{0};
}
#endif

// Mean of a row, and the sum of the squares around it.
struct Moments {
  double mean = 0, squares = 0;
};
#ifdef __AVX512BF16__
// Of halves the sums of elements and of squares are one operation a vector each. False where the
// mean is so far from 0 that less than 1/17 of the squares lies around it, or they are no number.
template <typename Fetch>
inline bool moments_at_once(const bfloat16* x, int64_t n, const Fetch& fetch, Moments* of) {
  const auto ones = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3F80));
  __m512 sums[4] = {}, squares[4] = {};
  const auto add = [&](int k, const __m512i& words) {
    const auto halves = reinterpret_cast<__m512bh>(words);
    sums[k] = _mm512_dpbf16_ps(sums[k], halves, ones);
    squares[k] = _mm512_dpbf16_ps(squares[k], halves, halves);
  };
  int64_t i = 0;
  for (; i + 4 * kHalves <= n; i += 4 * kHalves) {
    fetch(i);
    fetch(i + kGroup);
    for (int k = 0; k < 4; ++k) add(k, _mm512_loadu_si512(x + i + k * kHalves));
  }
  for (; i < n; i += kHalves) add(0, _mm512_maskz_loadu_epi16(first_halves(n - i), x + i));
  const double sum = sum_of_lanes<float>((sums[0] + sums[1]) + (sums[2] + sums[3]));
  const double all = sum_of_lanes<float>((squares[0] + squares[1]) + (squares[2] + squares[3]));
  of->mean = sum / static_cast<double>(n);
  of->squares = all - sum * of->mean;
  return 17 * of->squares >= all && all < __builtin_inf();
}
#endif
// In pieces that stay in the nearest cache, each of which is read twice, merged as by Chan, Golub
// and LeVeque (1979). A row's last additions wait for each other, while another row's go on. The
// next rows are fetched, from memory (far) twice, as not every request is heeded.
template <int kRows, typename S>
inline void add_moments(const S* x, bool far, int64_t n, Moments* of) {
  using T = Wide<S>;
  constexpr int64_t kPiece = 4096;
  for (int64_t i = 0; i < n; i += kPiece) {
    const int64_t count = n - i < kPiece ? n - i : kPiece;
    const double share = static_cast<double>(count) / static_cast<double>(i + count);
    Moments piece[kRows];
    bool at_once[kRows] = {};
    for (int row = 0; row < kRows; ++row) {
      const S* const at = x + row * n + i;
      const auto element = [](const auto& v) { return v; };
      const auto early = [=](int64_t k) {
        if (far) fetch_group(at + kRows * n + k);
      };
#ifdef __AVX512BF16__
      if constexpr (sizeof(S) == sizeof(bfloat16)) {
        at_once[row] = moments_at_once(at, count, early, piece + row);
      }
#endif
      if (!at_once[row]) {
        piece[row].mean = sum_of_piece<T>(count, early, element, at) / static_cast<T>(count);
      }
    }
    for (int row = 0; row < kRows; ++row) {
      if (at_once[row]) continue;
      const S* const at = x + row * n + i;
      const T mean = static_cast<T>(piece[row].mean);
      const auto square = [=](const auto& v) { return (v - mean) * (v - mean); };
      const auto next = [=](int64_t k) { fetch_group(at + kRows * n + k); };
      piece[row].squares = static_cast<double>(sum_of_piece<T>(count, next, square, at));
    }
    for (int row = 0; row < kRows; ++row) {
      const double apart = piece[row].mean - of[row].mean;
      of[row].squares += piece[row].squares + apart * apart * static_cast<double>(i) * share;
      of[row].mean += apart * share;
    }
  }
}

// A line of each of the next rows once more, as not every request is heeded.
template <int kRows, typename S>
inline void fetch_again(const S* x, int64_t n, int64_t i) {
  if (i * int64_t{sizeof(S)} % 64 != 0) return;
  for (int row = 0; row < kRows; ++row) fetch_line(x + (kRows + row) * n + i);
}

template <int kRows, typename S, typename T>
void layer_norm_of(const S* x, const T* gamma, const T* beta, T epsilon, bool past, int64_t n, S* y,
                   T* mean, T* rstd) {
  Moments of[kRows];
  add_moments<kRows>(x, past, n, of);
  T m[kRows], r[kRows];
  for (int row = 0; row < kRows; ++row) {
    const T variance = static_cast<T>(of[row].squares) / static_cast<T>(n);
    mean[row] = m[row] = static_cast<T>(of[row].mean);
    rstd[row] = r[row] = T{1} / static_cast<T>(__builtin_sqrt(variance + epsilon));
  }
  write_rows<kRows>(past, n, n, y, [=](auto by, int64_t i, auto* out) {
    if (past) fetch_again<kRows>(x, n, i);
    const auto weight = by.at(gamma + i), bias = by.at(beta + i);
    for (int row = 0; row < kRows; ++row) {
      out[row] = (by.at(x + row * n + i) - m[row]) * r[row] * weight + bias;
    }
  });
}
template <typename S, typename T>
void layer_norm(const S* x, const T* gamma, const T* beta, T epsilon, bool past, int64_t rows,
                int64_t n, S* y, T* mean, T* rstd) {
  by_rows(near_each_other(x, n) && !one_by_one(past, x, n), rows, [=]<int kRows>(int64_t row) {
    layer_norm_of<kRows>(x + row * n, gamma, beta, epsilon, past, n, y + row * n, mean + row,
                         rstd + row);
  });
}

// The sums of g = dy gamma and of g xhat over a row, in pieces as sum_over; fetch(i) once a group.
template <typename Fetch, typename S, typename T>
void norm_sums(const Fetch& fetch, const S* x, const S* dy, const T* gamma, T mean, T rstd,
               int64_t n, T* total, T* along) {
  constexpr int64_t kPiece = 4096, kLanes = kLanesOf<T>;
  double sum_g = 0, sum_along = 0;
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t end = n - begin < kPiece ? n : begin + kPiece;
    Lanes<T> g[4] = {}, hats[4] = {};
    const auto add = [&](auto by, int64_t k, int64_t i) {
      const Lanes<T> up = by.at(dy + i) * lanes_at(gamma + i);
      g[k] += up;
      hats[k] += up * (by.at(x + i) - mean);
    };
    int64_t i = begin;
    for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
      if (i % kGroup == 0) fetch(i);
      for (int64_t k = 0; k < 4; k += 2) {
        add(OfTwo<0>(), k, i + k * kLanes);
        add(OfTwo<1>(), k + 1, i + (k + 1) * kLanes);
      }
    }
    for (; i + kLanes <= end; i += kLanes) add(InVectors(), 0, i);
    Lanes<T> of_g = (g[0] + g[1]) + (g[2] + g[3]);
    Lanes<T> of_hats = (hats[0] + hats[1]) + (hats[2] + hats[3]);
    for (int64_t lane = 0; i < end; ++i, ++lane) {
      const T up = OneByOne::at(dy + i) * gamma[i];
      of_g[lane] += up;
      of_hats[lane] += up * (OneByOne::at(x + i) - mean);
    }
    sum_g += static_cast<double>(sum_of_lanes<T>(of_g));
    sum_along += static_cast<double>(sum_of_lanes<T>(of_hats));
  }
  *total = static_cast<T>(sum_g);
  *along = static_cast<T>(sum_along) * rstd;
}

#ifdef __AVX512F__
#include "kernels/cpu/norm_strips_avx512_body.h"
#endif

// Where a gradient goes past the caches (kFar), what it is computed of comes from memory: the same
// of the next rows, `apart` elements ahead, is fetched while its sums are taken, and once more
// while it is written, as not every request is heeded.
template <bool kFar, typename S>
struct NextRows {
  const S *x, *dy;
  int64_t apart;
  void operator()(int64_t i) const {  // once a group
    if constexpr (kFar) {
      fetch_group(x + apart + i);
      fetch_group(dy + apart + i);
    }
  }
  void line(int64_t i) const {
    if (kFar && i * int64_t{sizeof(S)} % 64 == 0) {
      fetch_line(x + apart + i);
      fetch_line(dy + apart + i);
    }
  }
};

// dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy gamma; of kRows rows, while as many that come
// after them are fetched into the second-level cache.
template <bool kPast, int kRows, typename S, typename T>
void layer_norm_backward_of(const S* x, const S* dy, const T* gamma, const T* mean, const T* rstd,
                            int64_t n, S* dx, T* dgamma, T* dbeta) {
  T center[kRows], factor[kRows], offset[kRows], slope[kRows];
  NextRows<kPast, S> next[kRows];
  for (int row = 0; row < kRows; ++row) {
    const int64_t at = row * n;
    next[row] = {x + at, dy + at, kRows * n};
    center[row] = mean[row], factor[row] = rstd[row];
    T sum_g = 0, sum_along = 0;
    norm_sums(next[row], x + at, dy + at, gamma, center[row], factor[row], n, &sum_g, &sum_along);
    offset[row] = factor[row] * (sum_g / static_cast<T>(n));
    slope[row] = factor[row] * (sum_along / static_cast<T>(n)) * factor[row];
  }
  write_rows<kRows>(kPast, n, n, dx, [=](auto by, int64_t i, auto* out) {
    const auto weight = by.at(gamma + i);
    auto to_gamma = by.at(dgamma + i), to_beta = by.at(dbeta + i);
    for (int row = 0; row < kRows; ++row) {
      next[row].line(i);
      const int64_t at = row * n + i;
      const auto up = by.at(dy + at), scaled = up * factor[row],
                 apart = by.at(x + at) - center[row];
      out[row] = scaled * weight - offset[row] - apart * slope[row];
      to_gamma += scaled * apart;
      to_beta += up;
    }
    by.at(dgamma + i) = to_gamma;
    by.at(dbeta + i) = to_beta;
  });
}
template <typename S, typename T>
void layer_norm_backward(const S* x, const S* dy, const T* gamma, const T* mean, const T* rstd,
                         bool past, int64_t rows, int64_t n, S* dx, T* dgamma, T* dbeta) {
#ifdef __AVX512F__
  if (by_strips(x, n)) {
    return layer_norm_backward_by_strips(x, dy, gamma, mean, rstd, past, rows, n, dx, dgamma,
                                         dbeta);
  }
#endif
  by_rows(!one_by_one(past, x, n), rows, [=]<int kRows>(int64_t row) {
    const int64_t at = row * n;
    (past ? layer_norm_backward_of<true, kRows, S, T>
          : layer_norm_backward_of<false, kRows, S, T>)(x + at, dy + at, gamma, mean + row,
                                                        rstd + row, n, dx + at, dgamma, dbeta);
  });
}

template <int kRows, typename S, typename T>
void rms_norm_of(const S* x, const T* gamma, T epsilon, bool past, int64_t n, S* y, T* rstd) {
  T r[kRows];
  for (int row = 0; row < kRows; ++row) {
    const auto square = [](const auto& v) { return v * v; };
    const auto next = [=](int64_t i) { fetch_group(x + (kRows + row) * n + i); };
    const T squares = sum_fetching<T>(n, next, square, x + row * n);
    rstd[row] = r[row] = T{1} / sqrt_of(squares / static_cast<T>(n) + epsilon);
  }
  write_rows<kRows>(past, n, n, y, [=](auto by, int64_t i, auto* out) {
    if (past) fetch_again<kRows>(x, n, i);
    const auto weight = by.at(gamma + i);
    for (int row = 0; row < kRows; ++row) out[row] = by.at(x + row * n + i) * r[row] * weight;
  });
}
template <typename S, typename T>
void rms_norm(const S* x, const T* gamma, T epsilon, bool past, int64_t rows, int64_t n, S* y,
              T* rstd) {
  // From memory one row after the other comes faster.
  by_rows(!past && near_each_other(x, n), rows, [=]<int kRows>(int64_t row) {
    rms_norm_of<kRows>(x + row * n, gamma, epsilon, past, n, y + row * n, rstd + row);
  });
}

// dx = rstd (g - xhat mean(g xhat)), g = dy gamma, xhat = x rstd; of kRows rows, while as many that
// come after them are fetched into the second-level cache.
template <bool kPast, int kRows, typename S, typename T>
void rms_norm_backward_of(const S* x, const S* dy, const T* gamma, const T* rstd, int64_t n, S* dx,
                          T* dgamma) {
  T factor[kRows], slope[kRows];
  NextRows<kPast, S> next[kRows];
  for (int row = 0; row < kRows; ++row) {
    const int64_t at = row * n;
    const T r = factor[row] = rstd[row];
    next[row] = {x + at, dy + at, kRows * n};
    const auto term = [](const auto& up, const auto& weight, const auto& v) {
      return up * weight * v;
    };
    const T along = sum_fetching<T>(n, next[row], term, dy + at, gamma, x + at) * r;
    slope[row] = r * (along / static_cast<T>(n)) * r;
  }
  write_rows<kRows>(kPast, n, n, dx, [=](auto by, int64_t i, auto* out) {
    const auto weight = by.at(gamma + i);
    auto to_gamma = by.at(dgamma + i);
    for (int row = 0; row < kRows; ++row) {
      next[row].line(i);
      const int64_t at = row * n + i;
      const auto scaled = by.at(dy + at) * factor[row], v = by.at(x + at);
      out[row] = scaled * weight - v * slope[row];
      to_gamma += scaled * v;
    }
    by.at(dgamma + i) = to_gamma;
  });
}
template <typename S, typename T>
void rms_norm_backward(const S* x, const S* dy, const T* gamma, const T* rstd, bool past,
                       int64_t rows, int64_t n, S* dx, T* dgamma) {
#ifdef __AVX512F__
  if (by_strips(x, n)) {
    return rms_norm_backward_by_strips(x, dy, gamma, rstd, past, rows, n, dx, dgamma);
  }
#endif
  by_rows(!one_by_one(past, x, n), rows, [=]<int kRows>(int64_t row) {
    const int64_t at = row * n;
    (past ? rms_norm_backward_of<true, kRows, S, T>
          : rms_norm_backward_of<false, kRows, S, T>)(x + at, dy + at, gamma, rstd + row, n,
                                                      dx + at, dgamma);
  });
}

// A row of nothing but -infinity gives zeros, and NaNs where it holds one.
template <typename S>
void write_nothing(const S* x, int64_t n, S* y) {
  const auto nothing = zero_or_nan(x, n);
  for (int64_t i = 0; i < n; ++i) OneByOne::put(false, y + i, nothing);
}

template <typename S, typename T>
void softmax_of(const S* x, T* exponentials, bool past, int64_t n, S* y) {
  const T largest = max_over(x, n);
  if (largest == -T(__builtin_inff())) return write_nothing(x, n, y);
  const T total = sum_of_exp(x, largest, n, [=](auto by, int64_t i, const auto& e) {
    by.put(false, exponentials + i, e);
    return e;
  });
  const T factor = T{1} / total;
  write_row(past, n, y, [=](auto by, int64_t i) { return by.at(exponentials + i) * factor; });
}

template <typename S, typename T>
void softmax(const S* x, T* exponentials, bool past, int64_t rows, int64_t n, S* y) {
  for (int64_t at = 0; at < rows * n; at += n) {
    T* of_row = exponentials;
    if constexpr (std::is_same_v<S, T>) of_row = past ? exponentials : y + at;
    softmax_of(x + at, of_row, past, n, y + at);
  }
}

// Whether one row at a time asks for the next: one within a page is fetched by the processor
// itself, and faster.
template <typename S>
inline bool far_rows(bool past, const S*, int64_t n) {
  return past && n * int64_t{sizeof(S)} > 4096;
}

// dx = y (dy - sum(y dy))
template <bool kFar, typename S>
void softmax_backward_of(const S* y, const S* dy, bool past, int64_t n, S* dx) {
  const NextRows<kFar, S> next{y, dy, n};
  const auto product = [](const auto& u, const auto& v) { return u * v; };
  const auto delta = sum_fetching<Wide<S>>(n, next, product, y, dy);
  write_row(past, n, dx, [=](auto by, int64_t i) {
    next.line(i);
    return by.at(y + i) * (by.at(dy + i) - delta);
  });
}
template <typename S>
void softmax_backward(const S* y, const S* dy, bool past, int64_t n, S* dx) {
  far_rows(past, y, n) ? softmax_backward_of<true>(y, dy, past, n, dx)
                       : softmax_backward_of<false>(y, dy, past, n, dx);
}

template <typename S>
void log_softmax_of(const S* x, bool past, int64_t n, S* y) {
  using T = Wide<S>;
  const T largest = max_over(x, n);
  if (largest == -T(__builtin_inff())) return write_nothing(x, n, y);
  const T total = sum_of_exp(x, largest, n, [](auto, int64_t, const auto& e) { return e; });
  const T log_total = static_cast<T>(__builtin_log(static_cast<double>(total)));
  write_row(past, n, y, [=](auto by, int64_t i) { return (by.at(x + i) - largest) - log_total; });
}

template <typename S>
void log_softmax(const S* x, bool past, int64_t rows, int64_t n, S* y) {
  for (int64_t at = 0; at < rows * n; at += n) log_softmax_of(x + at, past, n, y + at);
}

// dx = dy - e^y sum(dy)
template <bool kFar, typename S>
void log_softmax_backward_of(const S* y, const S* dy, bool past, int64_t n, S* dx) {
  using T = Wide<S>;
  const NextRows<kFar, S> next{y, dy, n};
  const auto element = [](const auto& v) { return v; };
  const T total = sum_fetching<T>(n, next, element, dy);
  write_row(past, n, dx, [=](auto by, int64_t i) {
    next.line(i);
    return by.at(dy + i) - exp_by<T>(by, by.at(y + i)) * total;
  });
}
template <typename S>
void log_softmax_backward(const S* y, const S* dy, bool past, int64_t n, S* dx) {
  far_rows(past, y, n) ? log_softmax_backward_of<true>(y, dy, past, n, dx)
                       : log_softmax_backward_of<false>(y, dy, past, n, dx);
}

#ifdef __AVX512F__
#include "kernels/cpu/norms_halves_avx512_body.h"
#endif

template <typename S>
constexpr NormKernels<S> table() {
  using T = Wide<S>;
  NormKernels<S> of = {
      layer_norm<S, T>, layer_norm_backward<S, T>, rms_norm<S, T>, rms_norm_backward<S, T>,
      softmax<S, T>,    softmax_backward<S>,       log_softmax<S>, log_softmax_backward<S>};
#ifdef __AVX512F__
  if constexpr (sizeof(S) == sizeof(bfloat16)) {
    of.softmax = softmax_of_halves;
    of.log_softmax = log_softmax_of_halves;
    of.log_softmax_backward = log_softmax_backward_of_halves;
  }
#endif
  return of;
}
