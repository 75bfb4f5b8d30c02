// The softmaxes of rows of halves with AVX-512, chosen over those of norms_body.h, which includes
// this; rules as there. They go by words of two halves, the even one below the odd one.
//
// Numerical policy: the exponential is only as exact as its rounded result needs, for half the
// operations. 2^t is 2^floor(t) times the polynomial of degree 3 of the rest that has the least
// relative error, 8.6e-5 (2^-13.5; half a unit of a half is 2^-9 to 2^-8), among those that are 1
// at 0. Sums of it stand in float, one for each 32nd element: of 4096 they are off by up to 128
// roundings, 8e-6. Rows that leave its range go the way of floats.

// 2^t in each lane, in two steps; 0 of -infinity, NaN of NaN.
struct NearPower {
  Floats t, rest;
  explicit NearPower(const Floats& of)
      : t(of), rest(_mm512_reduce_ps(of, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)) {}
  Floats end() const {
    const Floats slope = 0.69511679F + rest * (0.22764499F + 0.07706704F * rest);
    return _mm512_scalef_ps(1.0F + rest * slope, t);
  }
};

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

// x + y of halves.
inline Words sums_of(const Words& x, const Floats& y) {
#ifdef __AVX512BF16__
  // In their order, so that they need not be turned once they are rounded.
  const auto in_order = [&](int which) {
    return reinterpret_cast<Floats>(_mm512_maskz_permutexvar_epi16(
        0xAAAAAAAA, _mm512_load_si512(kUpperHalves.from[which]), reinterpret_cast<__m512i>(x)));
  };
  const __m512bh both = _mm512_cvtne2ps_pbh(plus(in_order(1), y), plus(in_order(0), y));
  return reinterpret_cast<const Words&>(both);
#else
  return rounded(plus(evens_of(x), y), plus(odds_of(x), y));
#endif
}

constexpr short kNothing = static_cast<short>(0xFF80);  // -infinity

// The n that are left of a row, and -infinity.
inline Words last_words(const bfloat16* x, int64_t n) {
  const __m512i nothing = _mm512_set1_epi16(kNothing);
  return reinterpret_cast<Words>(_mm512_mask_loadu_epi16(nothing, first_halves(n), x));
}
inline Words words_at(const bfloat16* x, int64_t i, int64_t n) {
  return i + kHalves <= n ? lanes_at(x + i) : last_words(x + i, n - i);
}
inline void put_words(bool lines, bfloat16* y, int64_t i, int64_t n, const Words& words) {
  if (i + kHalves <= n) return WholeLanes::put(lines, y + i, words);
  _mm512_mask_storeu_epi16(y + i, first_halves(n - i), reinterpret_cast<__m512i>(words));
}
// y = f(words of each) over rows of n.
template <typename F, typename... Rows>
inline void write_words(bool past, int64_t n, bfloat16* y, const F& f, const Rows*... rows) {
  const bool lines = by_lines(past, y);
  for (int64_t i = 0; i < n; i += kHalves) put_words(lines, y, i, n, f(words_at(rows, i, n)...));
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
  for (int64_t i = 0; i < n; i += kHalves) greatest.take(words_at(x, i, n));
  return greatest.value();
}

// Sums of 2^(x factor - shift) over a row.
class Powers {
 public:
  Powers(float factor, float shift) : factor_(Floats{} + factor), shift_(Floats{} + shift) {}
  struct Begun {
    NearPower evens, odds;
  };
  struct Pair {
    Floats evens, odds;
  };
  Begun begin(const Words& words) const {
    return {NearPower(_mm512_fmsub_ps(evens_of(words), factor_, shift_)),
            NearPower(_mm512_fmsub_ps(odds_of(words), factor_, shift_))};
  }
  Pair end(const Begun& begun) {
    const Pair of = {begun.evens.end(), begun.odds.end()};
    evens_ += of.evens;
    odds_ = plus(of.odds, odds_);
    return of;
  }
  float sum() const { return sum_of_lanes<float>(evens_ + odds_); }

 private:
  const Floats factor_, shift_;
  Floats evens_ = {}, odds_ = {};
};

// second(i, first(i)) for each i: the first of the next vector stands before the second of one, as
// the processor does not look ahead as far as chains of operations are long.
template <typename First, typename Second>
[[gnu::always_inline]] inline void in_two_steps(int64_t end, int64_t step, const First& first,
                                                const Second& second) {
  if (end == 0) return;
  auto begun = first(0);
  for (int64_t i = 0; i + step < end; i += step) {
    const auto next = first(i + step);
    second(i, begun);
    begun = next;
  }
  second(end - step, begun);
}

// The sum of a row's exponentials; also(i) is called before each vector's are there, use(i, them)
// then.
template <typename Also, typename Use>
[[gnu::always_inline]] inline float sum_of_powers(const bfloat16* x, int64_t n, float factor,
                                                  float shift, const Also& also, const Use& use) {
  // How far ahead others are fetched: two rows, but two pages at least, as memory takes longer than
  // what is computed of less.
  const int64_t ahead = 2 * n < 4096 ? 4096 : 2 * n, end = (n + kHalves - 1) / kHalves * kHalves;
  Powers powers(factor, shift);
  in_two_steps(
      end, kHalves, [&](int64_t i) { return powers.begin(words_at(x, i, n)); },
      [&](int64_t i, const Powers::Begun& begun) {
        fetch_line(x + ahead + i);
        also(i);
        use(i, powers.end(begun));
      });
  return powers.sum();
}

// Any number near the greatest does for what is divided by the sum of exponentials: the greatest of
// the first ones, unless these are hidden or the sum shows that it is not near. While a row's
// exponentials are summed, the row before is written, whose places they take: no last additions are
// waited for, and results leave all the time.
inline void softmax_of_halves(const bfloat16* x, float* exponentials, bool past, int64_t rows,
                              int64_t n, bfloat16* y) {
  constexpr float kLog = 1.44269502F;  // log2(e)
  bool waits = false;                  // the row before, to be written
  float total = 0;
  for (int64_t row = 0; row <= rows; ++row) {
    const bfloat16* const from = x + row * n;
    bfloat16* const to = y + (row - 1) * n;
    const Floats factor = Floats{} + 1.0F / total;
    const bool lines = by_lines(past, to);
    const auto write = [=](int64_t i) {
      const Floats evens = lanes_at(exponentials + i),
                   odds = lanes_at(exponentials + i + kLanesOf<float>);
      put_words(lines, to, i, n, rounded(evens * factor, odds * factor));
    };
    if (row == rows) {
      for (int64_t i = 0; waits && i < n; i += kHalves) write(i);
      return;
    }
    const auto keep = [=](int64_t i, const Powers::Pair& of) {
      lanes_at(exponentials + i) = of.evens;
      lanes_at(exponentials + i + kLanesOf<float>) = of.odds;
    };
    float near = greatest_of(from, n < kHalves ? n : kHalves);
    if (near == -__builtin_inff()) near = greatest_of(from, n);
    const float shift = near * kLog;
    total = waits ? sum_of_powers(from, n, kLog, shift, write, keep)
                  : sum_of_powers(
                        from, n, kLog, shift, [](int64_t) {}, keep);
    waits = total > 0.5F && total < 0x1p100F;
    if (!waits) softmax_of(from, exponentials, past, n, y + row * n);
  }
}

// While a row's exponentials are summed, the next one's greatest number is found; then the row
// before is written, so that no last additions are waited for.
inline void log_softmax_of_halves(const bfloat16* x, bool past, int64_t rows, int64_t n,
                                  bfloat16* y) {
  // log2(e) to 16 bits, 4.9e-6 apart: times a half it is exact, so that the greatest number's
  // exponential is 1, and the logarithm of the sum as exact where it is near 0.
  constexpr float kLog = 0x1.7154p0F;
  float largest = greatest_of(x, n), largest_before = 0, total_before = 0;
  for (int64_t row = 0; row <= rows; ++row) {
    const bfloat16 *const from = x + row * n, *const before = from - n;
    const bfloat16* const next = row + 1 < rows ? from + n : from;
    float total = 0;
    Greatest of_next;
    if (row < rows) {
      total = sum_of_powers(
          from, n, kLog, largest * kLog, [&](int64_t i) { of_next.take(words_at(next, i, n)); },
          [](int64_t, const Powers::Pair&) {});
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
        const auto element = [=](const Words& words) { return sums_of(words, less_all); };
        write_words(past, n, to, element, before);
      } else {
        const auto element = [=](const Words& words) {
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
  const auto element = [=](const Words& logs, const Words& up) {
    return rounded(evens_of(up) - power_exact_at_0(evens_of(logs) * kLog) * total,
                   odds_of(up) - power_exact_at_0(odds_of(logs) * kLog) * total);
  };
  write_words(past, n, dx, element, y, dy);
}
