// The softmaxes of rows of halves with AVX-512, chosen over those of norms_body.h, which includes
// this; rules as there. They go by words of two halves, the even one below the odd one.
//
// Numerical policy: the exponential is only as exact as its rounded result needs, for half the
// operations. 2^t is 2^floor(t) times the polynomial of degree 3 of the rest that has the least
// relative error, 8.6e-5 (2^-13.5; half a unit of a half is 2^-9 to 2^-8), among those that are 1
// at 0. Sums of it stand in float, one for each 32nd element: of 4096 they are off by up to 128
// roundings, 8e-6. Rows that leave its range go the way of floats.

// 2^t in each lane; 0 of -infinity, NaN of NaN.
inline Floats near_power_of(const Floats& t) {
  const Floats rest = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const Floats slope = 0.69511679F + rest * (0.22764499F + 0.07706704F * rest);
  return _mm512_scalef_ps(1.0F + rest * slope, t);
}

// The same about the nearest integer, so that it is exact on both sides of 0, where a gradient's
// two terms cancel; off by 1.02e-4 elsewhere, and slower.
inline Floats power_exact_at_0(const Floats& t) {
  const Floats rest = _mm512_reduce_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Floats slope = 0.69328293F + rest * (0.24221096F + 0.05500893F * rest);
  return _mm512_scalef_ps(1.0F + rest * slope, t - rest);
}

// x + y by the units of products, which have less to do here than those of sums.
inline Floats plus(const Floats& x, const Floats& y) {
  return _mm512_fmadd_ps(x, _mm512_set1_ps(1.0F), y);
}

typedef Lanes<bfloat16> Words;

constexpr short kNothing = static_cast<short>(0xFF80);  // -infinity

// The n that are left of a row, and -infinity.
inline Words last_words(const bfloat16* x, int64_t n) {
  const __m512i nothing = _mm512_set1_epi16(kNothing);
  return reinterpret_cast<Words>(_mm512_mask_loadu_epi16(nothing, first_halves(n), x));
}
// act(i, words of each) over rows of n.
template <typename Act, typename... Rows>
inline void by_words(int64_t n, const Act& act, const Rows*... rows) {
  int64_t i = 0;
  for (; i + kHalves <= n; i += kHalves) act(i, lanes_at(rows + i)...);
  if (i < n) act(i, last_words(rows + i, n - i)...);
}
// y = f(i, words of each) over rows of n.
template <bool kPast, typename F, typename... Rows>
inline void write_words_of(int64_t n, bfloat16* y, const F& f, const Rows*... rows) {
  int64_t i = 0;
  for (; i + kHalves <= n; i += kHalves) WholeLanes::put(kPast, y + i, f(i, lanes_at(rows + i)...));
  if (i < n) {
    const Words words = f(i, last_words(rows + i, n - i)...);
    _mm512_mask_storeu_epi16(y + i, first_halves(n - i), reinterpret_cast<__m512i>(words));
  }
}
template <typename F, typename... Rows>
inline void write_words(bool past, int64_t n, bfloat16* y, const F& f, const Rows*... rows) {
  by_lines(past, y) ? write_words_of<true>(n, y, f, rows...)
                    : write_words_of<false>(n, y, f, rows...);
}

// The greatest of halves. Passes over NaNs whose sign is set; others are greatest.
class Greatest {
 public:
  void take(const Words& words) {
    with_sign_ = _mm512_max_epi16(with_sign_, reinterpret_cast<__m512i>(words));
    without_ = _mm512_min_epu16(without_, reinterpret_cast<__m512i>(words));
  }
  // Both are of the halves, or -infinity: the greatest is one of them. Among keys it is the least.
  float value() const {
    const __m512i keys = _mm512_min_epu16(key_of(with_sign_), key_of(without_));
    const __m256i half =
        _mm256_min_epu16(_mm512_castsi512_si256(keys), _mm512_extracti64x4_epi64(keys, 1));
    const __m128i few =
        _mm_min_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    const unsigned key = static_cast<unsigned>(_mm_cvtsi128_si32(_mm_minpos_epu16(few))) & 0xFFFF;
    return __builtin_bit_cast(float, (key < 0x8000 ? 0x7FFF - key : key) << 16);
  }

 private:
  static __m512i key_of(const __m512i& words) {
    const __mmask32 positive = _mm512_cmpge_epi16_mask(words, _mm512_setzero_si512());
    return _mm512_mask_sub_epi16(words, positive, _mm512_set1_epi16(0x7FFF), words);
  }
  // The greatest word with a sign, which is the greatest positive number, and the least without
  // one, which is the greatest of negative numbers.
  __m512i with_sign_ = _mm512_set1_epi16(kNothing), without_ = with_sign_;
};
inline float greatest_of(const bfloat16* x, int64_t n) {
  Greatest greatest;
  by_words(
      n, [&](int64_t, const Words& words) { greatest.take(words); }, x);
  return greatest.value();
}

// Sums of 2^(x factor - shift) over a row.
class Powers {
 public:
  Powers(float factor, float shift) : factor_(Floats{} + factor), shift_(Floats{} + shift) {}
  struct Pair {
    Floats even, odd;
  };
  Pair take(const Words& words) {
    const Pair of = {near_power_of(_mm512_fmsub_ps(evens_of(words), factor_, shift_)),
                     near_power_of(_mm512_fmsub_ps(odds_of(words), factor_, shift_))};
    evens_ += of.even;
    odds_ = plus(of.odd, odds_);
    return of;
  }
  float sum() const { return sum_of_lanes<float>(evens_ + odds_); }

 private:
  const Floats factor_, shift_;
  Floats evens_ = {}, odds_ = {};
};

// How far ahead of a row others are fetched: two of them, but two pages at least, as memory takes
// longer than what is computed of less.
inline int64_t ahead_of(int64_t n) { return 2 * n < 4096 ? 4096 : 2 * n; }

constexpr int64_t kTogether = 2048;  // exponentials of two rows in half of the nearest cache

// Of kRows rows, so that the last additions of one do not wait. Any number near the greatest does
// for what is divided by their sum: the greatest of the first ones, unless these are hidden or the
// sum shows that it is not near.
template <int kRows>
inline void softmax_of_halves(const bfloat16* x, float* exponentials, bool past, int64_t n,
                              bfloat16* y) {
  constexpr float kLog = 1.44269502F;  // log2(e)
  const int64_t room = (n + kHalves - 1) / kHalves * kHalves;
  const int64_t ahead = ahead_of(n);
  float near[kRows], total[kRows];
  for (int row = 0; row < kRows; ++row) {
    near[row] = greatest_of(x + row * n, n < kHalves ? n : kHalves);
    if (near[row] == -__builtin_inff()) near[row] = greatest_of(x + row * n, n);
  }
  for (int row = 0; row < kRows; ++row) {
    float* const to = exponentials + row * room;
    Powers powers(kLog, near[row] * kLog);
    const auto take = [&](int64_t i, const Words& words) {
      fetch_line(x + row * n + ahead + i);
      const Powers::Pair of = powers.take(words);
      lanes_at(to + i) = of.even;
      lanes_at(to + i + kLanesOf<float>) = of.odd;
    };
    by_words(n, take, x + row * n);
    total[row] = powers.sum();
  }
  for (int row = 0; row < kRows; ++row) {
    const float* const from = exponentials + row * room;
    const float factor = 1.0F / total[row];
    const bool reaches = total[row] > 0.5F && total[row] < 0x1p100F;
    if (reaches) {
      write_words(past, n, y + row * n, [=](int64_t i) {
        return rounded(lanes_at(from + i) * factor, lanes_at(from + i + kLanesOf<float>) * factor);
      });
    } else {
      softmax_of(x + row * n, exponentials + row * room, past, n, y + row * n);
    }
  }
}
inline void softmax_of_halves(const bfloat16* x, float* exponentials, bool past, int64_t rows,
                              int64_t n, bfloat16* y) {
  by_rows(n <= kTogether, rows, [=]<int kRows>(int64_t row) {
    softmax_of_halves<kRows>(x + row * n, exponentials, past, n, y + row * n);
  });
}

// While a row's exponentials are summed, the next one's greatest number is found; then the row
// before is written, so that no last additions are waited for.
inline void log_softmax_of_halves(const bfloat16* x, bool past, int64_t rows, int64_t n,
                                  bfloat16* y) {
  // log2(e) to 16 bits, 4.9e-6 apart: times a half it is exact, so that the greatest number's
  // exponential is 1, and the logarithm of the sum as exact where it is near 0.
  constexpr float kLog = 0x1.7154p0F;
  const int64_t ahead = ahead_of(n);
  float largest = greatest_of(x, n), largest_before = 0, total_before = 0;
  for (int64_t row = 0; row <= rows; ++row) {
    const bfloat16 *const from = x + row * n, *const before = from - n;
    const bfloat16* const next = row + 1 < rows ? from + n : from;
    float total = 0;
    Greatest of_next;
    if (row < rows) {
      Powers powers(kLog, largest * kLog);
      const auto take = [&](int64_t i, const Words& words, const Words& next_words) {
        fetch_line(from + ahead + i);
        powers.take(words);
        of_next.take(next_words);
      };
      by_words(n, take, from, next);
      total = powers.sum();
    }
    if (row > 0) {
      bfloat16* const to = y + (row - 1) * n;
      const float log_total = static_cast<float>(__builtin_log(static_cast<double>(total_before)));
      const float log_sum = largest_before + log_total;
      const Floats less = Floats{} - largest_before, less_all = Floats{} - log_sum;
      if (!(total_before >= 1 && total_before < __builtin_inff())) {
        log_softmax_of(before, past, n, to);
      } else if (__builtin_fabsf(log_sum) <= 512 * log_total) {
        // No result is nearer to 0 than log_total: what their sum loses is at most 2^-15 of it.
        const auto element = [=](int64_t, const Words& words) {
          return rounded(plus(evens_of(words), less_all), plus(odds_of(words), less_all));
        };
        write_words(past, n, to, element, before);
      } else {
        const auto element = [=](int64_t, const Words& words) {
          const Floats even = plus(evens_of(words), less), odd = plus(odds_of(words), less);
          return rounded(even - log_total, odd - log_total);
        };
        write_words(past, n, to, element, before);
      }
    }
    total_before = total;
    largest_before = largest;
    largest = of_next.value();
  }
}

inline void log_softmax_backward_of_halves(const bfloat16* y, const bfloat16* dy, bool past,
                                           int64_t n, bfloat16* dx) {
  constexpr float kLog = 1.44269502F;
  const float total = sum_fetching<float>(
      n, kFetchNothing, [](const auto& v) { return v; }, dy);
  const auto element = [=](int64_t, const Words& logs, const Words& up) {
    return rounded(evens_of(up) - power_exact_at_0(evens_of(logs) * kLog) * total,
                   odds_of(up) - power_exact_at_0(odds_of(logs) * kLog) * total);
  };
  write_words(past, n, dx, element, y, dy);
}
