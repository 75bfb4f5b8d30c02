// Running sums, in double: a float's would lose a digit in ten thousand terms. Included by
// vectors_body.h, rules as there.

typedef Lanes<double> Doubles;
constexpr int kDoubles = static_cast<int>(kLanesOf<double>);
typedef float HalfOfFloats __attribute__((vector_size(kVectorBytes / 2)));

// One half of a vector of floats, the lower (0) or the upper (1).
template <int kHalf>
inline Doubles doubles_of(const Lanes<float>& x) {
#ifdef __AVX512F__
  return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, kHalf));
#elif defined(__AVX__)
  return _mm256_cvtps_pd(_mm256_extractf128_ps(x, kHalf));
#else
  return _mm_cvtps_pd(kHalf == 0 ? x : __builtin_shufflevector(x, x, 2, 3, 0, 1));
#endif
}
inline Lanes<float> floats_of(const Doubles& low, const Doubles& high) {
  return [&]<int... i>(std::integer_sequence<int, i...>)->Lanes<float> {
    return __builtin_shufflevector(__builtin_convertvector(low, HalfOfFloats),
                                   __builtin_convertvector(high, HalfOfFloats), i...);
  }
  (std::make_integer_sequence<int, 2 * kDoubles>());
}

// Along a row, from its beginning or from its end: what vectors after each other become.
template <bool kReversed>
class RunningSums {
 public:
  Doubles next(Doubles x) {
    [&]<int... step>(std::integer_sequence<int, step...>) { (add<(1 << step)>(x), ...); }
    (std::make_integer_sequence<int, std::bit_width(unsigned{kDoubles}) - 1>());
    const Doubles y = x + before_;
    before_ += last_of(x);
    return y;
  }
  Lanes<float> next(const Lanes<float>& x) {
    Doubles low = doubles_of<0>(x), high = doubles_of<1>(x);
    if (kReversed) high = next(high);
    low = next(low);
    if (!kReversed) high = next(high);
    return floats_of(low, high);
  }

 private:
  // x plus what lies kStep lanes before.
  template <int kStep>
  static void add(Doubles& x) {
    [&]<int... i>(std::integer_sequence<int, i...>) {
      const auto from = [](int lane) {
        const int at = kReversed ? lane + kStep : lane - kStep;
        return at < 0 || at >= kDoubles ? 0 : kDoubles + at;  // 0: a zero
      };
      x += __builtin_shufflevector(Doubles{}, x, from(i)...);
    }
    (std::make_integer_sequence<int, kDoubles>());
  }
  static Doubles last_of(const Doubles& x) {
    return [&]<int... i>(std::integer_sequence<int, i...>)->Doubles {
      return __builtin_shufflevector(x, x, (kReversed ? 0 * i : kDoubles - 1 + 0 * i)...);
    }
    (std::make_integer_sequence<int, kDoubles>());
  }

  Doubles before_{};
};

// One vector of S.
template <bool kReversed, typename S>
inline void put_running(RunningSums<kReversed>& sums, const S* x, bool past, S* y) {
  if constexpr (sizeof(S) == sizeof(bfloat16)) {
    Lanes<float> low = widened_in_order(x), high = widened_in_order(x + kLanesOf<float>);
    if (kReversed) high = sums.next(high);
    low = sums.next(low);
    if (!kReversed) high = sums.next(high);
    WholeLanes::put(past, y, rounded_in_order(low, high));
  } else {
    WholeLanes::put(past, y, sums.next(lanes_at(x)));
  }
}
template <bool kReversed, typename S>
inline void put_running_row(const S* x, Target<S> y, int64_t n) {
  constexpr int64_t kStep = kLanesOf<S>;
  constexpr int64_t kAhead = 2048;  // elements: the processor itself does not look past a page
  const bool past = by_lines(y.past, y.at);
  const int64_t whole = n - n % kStep;
  RunningSums<kReversed> sums;
  const auto put_rest = [&] {
    S few[kStep] = {};
    copy_row(x + whole, few, n - whole);
    put_running(sums, few, false, few);
    copy_row(few, y.at + whole, n - whole);
  };
  if (kReversed && whole < n) put_rest();
  for (int64_t done = 0; done < whole; done += kStep) {
    const int64_t i = kReversed ? whole - kStep - done : done;
    fetch_line(x + i + (kReversed ? -kAhead : kAhead));
    put_running(sums, x + i, past, y.at + i);
  }
  if (!kReversed && whole < n) put_rest();
}
template <typename S>
void running_sums(bool reversed, const S* x, Target<S> y, int64_t n) {
  if (reversed) return put_running_row<true>(x, y, n);
  put_running_row<false>(x, y, n);
}

template <typename S>
void add_to_running(const S* x, int64_t ahead, double* sums, Target<S> y, int64_t n) {
  write_row(y.past, n, y.at, [=](auto by, int64_t i) {
    if (i * int64_t{sizeof(S)} % 64 == 0) fetch_line(x + ahead + i);
    const auto v = by.at(x + i);
    if constexpr (sizeof(v) == kVectorBytes && sizeof(Wide<S>) == sizeof(float)) {
      Doubles& low = lanes_at(sums + i);
      Doubles& high = lanes_at(sums + i + kDoubles);
      low += doubles_of<0>(v);
      high += doubles_of<1>(v);
      return floats_of(low, high);
    } else {
      const auto sum = by.at(const_cast<const double*>(sums) + i) + v;
      by.at(sums + i) = sum;
      return static_cast<std::remove_const_t<decltype(v)>>(sum);
    }
  });
}
