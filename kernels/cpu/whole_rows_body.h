// What goes over whole rows of floats, doubles or halves: sums, the greatest element, exponentials,
// and how results are written. For rows_body.h, vectors_body.h and norms_body.h; rules as there.

#include "kernels/cpu/map_body.h"
#include "kernels/cpu/math_body.h"

// Halves of a vector of floats, in their order: widened exactly, and rounded as convert_body.h
// does.
typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));
typedef uint32_t FloatBits __attribute__((vector_size(kVectorBytes)));

inline Lanes<float> widened_in_order(const bfloat16* x) {
#ifdef __AVX512F__
  const auto words = _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(x));
  return reinterpret_cast<Lanes<float>>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
#elif defined(__AVX2__)
  const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(x));
  const __m256i upper_halves =
      _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7,  //
                       -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
  return reinterpret_cast<Lanes<float>>(
      _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(words), upper_halves));
#else
  return reinterpret_cast<Lanes<float>>(
      __builtin_convertvector(*reinterpret_cast<const Halves*>(x), FloatBits) << 16);
#endif
}
inline Halves rounded_in_order(const Lanes<float>& x) {
#ifdef __AVX512BF16__
  return reinterpret_cast<Halves>(_mm512_cvtneps_pbh(x));
#else
  const FloatBits word = reinterpret_cast<FloatBits>(x);
  const FloatBits nearest = (word + 0x7FFF + (word >> 16 & 1)) >> 16;
  const FloatBits number = (word & 0x7FFFFFFF) <= 0x7F800000 ? nearest : (word >> 16 | 0x40);
  return __builtin_convertvector(number, Halves);
#endif
}
// The same of two vectors that lie beside each other, for little more than of one.
inline Lanes<bfloat16> rounded_in_order(const Lanes<float>& low, const Lanes<float>& high) {
#ifdef __AVX512BF16__
  const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
  return reinterpret_cast<const Lanes<bfloat16>&>(both);
#else
  typedef LanesOf<uint16_t>::Type Words;
  const RoundedWords words(low, high);
  return [&]<int... i>(std::integer_sequence<int, i...>) {
    return reinterpret_cast<Lanes<bfloat16>>(
        __builtin_shufflevector(reinterpret_cast<Words>(words.first),
                                reinterpret_cast<Words>(words.second), (2 * i + 1)...));
  }
  (std::make_integer_sequence<int, kLanesOf<uint16_t>>());
#endif
}
inline void put_past(bfloat16* to, const Halves& halves) {
#ifdef __AVX512F__
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(halves));
#elif defined(__AVX__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), reinterpret_cast<__m128i>(halves));
#else
  _mm_stream_si64(reinterpret_cast<long long*>(to), reinterpret_cast<long long>(halves));
#endif
}

// What a loop over a row takes at once, computed in Wide<S>: whole vectors, and the elements after
// the last one.
struct InVectors {
  template <typename T>
  static auto& at(T* x) {
    return lanes_at(x);
  }
  template <typename S>
  static Lanes<Wide<S>> at(const S* x) {
    if constexpr (sizeof(S) == sizeof(bfloat16)) {
      return widened_in_order(x);
    } else {
      return lanes_at(x);
    }
  }
  template <typename S>
  static void put(bool past, S* y, const Lanes<Wide<S>>& values) {
    if constexpr (sizeof(S) == sizeof(bfloat16)) {
      const Halves halves = rounded_in_order(values);
      if (past) return put_past(y, halves);
      *reinterpret_cast<Halves*>(y) = halves;
    } else {
      WholeLanes::put(past, y, values);
    }
  }
};
#ifdef __AVX512F__
// Words 16 to 31 of the permuted are the upper halves of what was word 0 to 15 or 16 to 31.
struct UpperHalves {
  alignas(64) uint16_t from[2][32] = {};
  constexpr UpperHalves() {
    for (int i = 0; i < 64; ++i) from[i / 32][i % 32] = static_cast<uint16_t>(i / 2);
  }
};
constexpr UpperHalves kUpperHalves;
#endif
// One of two vectors that lie beside each other, the lower (0) or the upper (1). Of halves both are
// one load, and each one permutation of its words, where a vector alone takes two operations.
template <int kWhich>
struct OfTwo : InVectors {
  using InVectors::at;
#ifdef __AVX512F__
  static Lanes<float> at(const bfloat16* x) {
    const __m512i both = _mm512_loadu_si512(x - kWhich * kLanesOf<float>);
    return reinterpret_cast<Lanes<float>>(_mm512_maskz_permutexvar_epi16(
        0xAAAAAAAA, _mm512_load_si512(kUpperHalves.from[kWhich]), both));
  }
#endif
};
struct OneByOne {
  template <typename T>
  static T& at(T* x) {
    return *x;
  }
  template <typename S>
  static Wide<S> at(const S* x) {
    if constexpr (sizeof(S) == sizeof(bfloat16)) {
      return __builtin_bit_cast(float, static_cast<uint32_t>(x->bits) << 16);
    } else {
      return *x;
    }
  }
  template <typename S>
  static void put(bool, S* y, Wide<S> value) {
    if constexpr (sizeof(S) == sizeof(bfloat16)) {
      y->bits = rounded_in_order(value - Lanes<float>{})[0];  // of -0 it, too
    } else {
      *y = value;
    }
  }
};

// x > y ? x : y in each lane.
template <typename T>
inline Lanes<T> larger_of(const Lanes<T>& x, const Lanes<T>& y) {
#ifdef __AVX512F__
  if constexpr (sizeof(T) == sizeof(float)) return _mm512_max_ps(x, y);
#endif
  return x > y ? x : y;
}

// -infinity of none; passes over NaNs.
template <typename S, typename T = Wide<S>>
inline T max_over(const S* x, int64_t n) {
  constexpr int64_t kLanes = kLanesOf<T>;
  const Lanes<T> least = Lanes<T>{} - T(__builtin_inff());
  Lanes<T> a = least, b = least, c = least, d = least;
  const auto take = [&](Lanes<T>& of, int64_t k) {
    const Lanes<T> values = InVectors::at(x + k);
    of = larger_of<T>(values, of);
  };
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    take(a, i);
    take(b, i + kLanes);
    take(c, i + 2 * kLanes);
    take(d, i + 3 * kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) take(a, i);
  a = larger_of<T>(larger_of<T>(a, b), larger_of<T>(c, d));
  T largest = a[0];
  for (int64_t lane = 1; lane < kLanes; ++lane) largest = a[lane] > largest ? a[lane] : largest;
  for (; i < n; ++i) {
    const T value = OneByOne::at(x + i);
    largest = value > largest ? value : largest;
  }
  return largest;
}

// NaN where one is among the elements, else 0: the softmax of a row of which max_over is -infinity,
// since it passes over NaNs.
template <typename S, typename T = Wide<S>>
inline T zero_or_nan(const S* x, int64_t n) {
  T found = 0;
  for (int64_t i = 0; i < n; ++i) {
    const T value = OneByOne::at(x + i);
    found = value != value ? value : found;
  }
  return found;
}

// Asks for a line that may be nobody's, in the second-level cache: the first holds what is
// computed. Not __builtin_prefetch, as GCC drops calls of a function that does nothing else.
inline void fetch_line(const void* line) {
  asm volatile("prefetcht1 %0" : : "m"(*static_cast<const char*>(line)));
}
// The same in the first one.
inline void fetch_nearest(const void* line) {
  asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(line)));
}
// A group of the next row, while this one is computed.
template <typename S>
inline void fetch_group(const S* x) {
  constexpr int kLine = 64 / static_cast<int>(sizeof(S));
  for (int line = 0; line < kGroup; line += kLine) fetch_line(x + line);
}

// The sum of f(rows[i]...) over [0, n), in four vectors of partial sums: in one, each addition
// would wait for the one before. fetch(i) is called once a group.
template <typename T, typename Fetch, typename F, typename... Rows>
inline T sum_of_piece(int64_t n, const Fetch& fetch, const F& f, const Rows*... rows) {
  constexpr int64_t kLanes = kLanesOf<T>;
  Lanes<T> a{}, b{}, c{}, d{};
  int64_t i = 0;
  const auto term = [&](auto by, int64_t k) { return f(by.at(rows + k)...); };
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    if (i % kGroup == 0) fetch(i);
    a += term(OfTwo<0>(), i);
    b += term(OfTwo<1>(), i + kLanes);
    c += term(OfTwo<0>(), i + 2 * kLanes);
    d += term(OfTwo<1>(), i + 3 * kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) a += term(InVectors(), i);
  a = (a + b) + (c + d);
  for (int64_t lane = 0; i < n; ++i, ++lane) a[lane] += f(OneByOne::at(rows + i)...);
  return sum_of_lanes<T>(a);
}

// The same over a row of any length, in pieces whose sums are added in double: a lane that adds up
// tens of thousands of numbers loses the last digits of each. f takes elements or vectors of them.
template <typename T, typename Fetch, typename F, typename... Rows>
inline T sum_fetching(int64_t n, const Fetch& fetch, const F& f, const Rows*... rows) {
  constexpr int64_t kPiece = 4096;
  double total = 0;
  for (int64_t at = 0; at < n; at += kPiece) {
    const int64_t count = n - at < kPiece ? n - at : kPiece;
    const auto here = [&](int64_t i) { fetch(at + i); };
    total += static_cast<double>(sum_of_piece<T>(count, here, f, (rows + at)...));
  }
  return static_cast<T>(total);
}
constexpr auto kFetchNothing = [](int64_t) {};
template <typename T, typename F, typename... Rows>
inline T sum_over(int64_t n, const F& f, const Rows*... rows) {
  return sum_fetching<T>(n, kFetchNothing, f, rows...);
}

// f(one of these, i, out) over n elements of kRows rows, where out[row] becomes y[row * stride +
// i]. Past the caches by whole lines, which leave the processor at once; halves by two vectors.
template <int kRows, bool kPast, typename S, typename F>
inline void write_rows_of(int64_t n, int64_t stride, S* y, const F& f) {
  using T = Wide<S>;
  constexpr int64_t kLanes = kLanesOf<T>, kStep = kPast ? 64 / int64_t{sizeof(S)} : kLanesOf<S>;
  constexpr int kVectors = kStep / kLanes;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    Lanes<T> out[kVectors][kRows];
    [&]<int... k>(std::integer_sequence<int, k...>) {
      (f(OfTwo<k % 2>(), i + k * kLanes, out[k]), ...);
    }
    (std::make_integer_sequence<int, kVectors>());
    for (int row = 0; row < kRows; ++row) {
      S* const to = y + row * stride + i;
      for (int k = 0; k < kVectors; k += kLanesOf<S> / kLanes) {
        if constexpr (sizeof(S) == sizeof(T)) {
          InVectors::put(kPast, to + k * kLanes, out[k][row]);
        } else {
          WholeLanes::put(kPast, to + k * kLanes, rounded_in_order(out[k][row], out[k + 1][row]));
        }
      }
    }
  }
  for (; i + kLanes <= n; i += kLanes) {
    Lanes<T> out[kRows];
    f(InVectors(), i, out);
    for (int row = 0; row < kRows; ++row) InVectors::put(kPast, y + row * stride + i, out[row]);
  }
  for (; i < n; ++i) {
    T out[kRows];
    f(OneByOne(), i, out);
    for (int row = 0; row < kRows; ++row) OneByOne::put(false, y + row * stride + i, out[row]);
  }
}
// past: y goes past the caches, if its addresses allow it.
template <int kRows, typename S, typename F>
inline void write_rows(bool past, int64_t n, int64_t stride, S* y, const F& f) {
  if (by_lines(past, y) && (kRows == 1 || stride * int64_t{sizeof(S)} % kVectorBytes == 0)) {
    write_rows_of<kRows, true>(n, stride, y, f);
  } else {
    write_rows_of<kRows, false>(n, stride, y, f);
  }
}
// y[i] = f(one of these, i) over a row.
template <typename S, typename F>
inline void write_row(bool past, int64_t n, S* y, const F& f) {
  write_rows<1>(past, n, n, y, [&](auto by, int64_t i, auto* out) { *out = f(by, i); });
}

// e^x in each lane, and of one number by the same code: a value does not depend on its place.
template <typename T>
inline Lanes<T> exp_by(InVectors, const Lanes<T>& x) {
  if constexpr (kVectorMath<T>) {
    return exp_below_of(x);
  } else {
    Lanes<T> y;
#pragma omp simd
    for (int64_t lane = 0; lane < kLanesOf<T>; ++lane) y[lane] = exp_of(x[lane]);
    return y;
  }
}
template <typename T>
inline T exp_by(OneByOne, T x) {
  return exp_by<T>(InVectors(), Lanes<T>{} + x)[0];
}

#ifdef WEFT_PACKS
// The beginning of sum_of_exp_of, to where *i is then, by whole packs; each lane's sum.
template <bool kFar, typename S, typename T, typename F>
[[gnu::flatten]] inline Lanes<T> sums_of_exp_packs(const S* x, T shift, int64_t n, const F& f,
                                                   int64_t* i) {
  Lanes<T> sums{};
  for (; *i + kPackOf<T> <= n; *i += kPackOf<T>) {
    Pack powers;
    for (int k = 0; k < Pack::kVectors; ++k) {
      const S* const at = x + *i + k * kLanesOf<T>;
      kFar ? fetch_line(at + n) : __builtin_prefetch(at + n);
      powers.of[k] = InVectors::at(at) - shift;
    }
    powers = exp_of(powers);
    for (int k = 0; k < Pack::kVectors; ++k) {
      sums += f(InVectors(), *i + k * kLanesOf<T>, powers.of[k]);
    }
  }
  return sums;
}
#endif
// The sum of f(one of InVectors and OneByOne, i, e^(x[i] - shift)) over a row, while the next row
// is fetched: into the first-level cache, or (kFar) into the second.
template <bool kFar, typename S, typename T, typename F>
inline T sum_of_exp_of(const S* x, T shift, int64_t n, const F& f) {
  Lanes<T> sums{};
  int64_t i = 0;
#ifdef WEFT_PACKS
  if constexpr (kPackMath<T>) sums = sums_of_exp_packs<kFar>(x, shift, n, f, &i);
#endif
  for (; i + kLanesOf<T> <= n; i += kLanesOf<T>) {
    kFar ? fetch_line(x + n + i) : __builtin_prefetch(x + n + i);
    sums += f(InVectors(), i, exp_by<T>(InVectors(), InVectors::at(x + i) - shift));
  }
  for (int64_t lane = 0; i < n; ++i, ++lane) {
    sums[lane] += f(OneByOne(), i, exp_by<T>(OneByOne(), OneByOne::at(x + i) - shift));
  }
  return sum_of_lanes<T>(sums);
}
template <typename S, typename T, typename F>
inline T sum_of_exp(const S* x, T shift, int64_t n, const F& f) {
  constexpr int64_t kNear = 8192;  // more of two rows than the first has room for
  return n * int64_t{sizeof(S)} > kNear ? sum_of_exp_of<true>(x, shift, n, f)
                                        : sum_of_exp_of<false>(x, shift, n, f);
}
