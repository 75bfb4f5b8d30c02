// Elementwise loops for rows_body.h and vectors_body.h; rules as there. Wide: wide.h.
//
// Loops whose products and sums a compiler may contract go by whole groups of lanes and finish on
// a padded copy, both by one function that is not inlined: contraction differs between a vector
// loop and what is left of it, and an element's value must not depend on where its row was cut.

constexpr int kGroup = 64;
#define WEFT_ONE_BODY __attribute__((noinline, noclone))

template <typename F, typename T>
WEFT_ONE_BODY void map_group(const F& f, const T* x, T* y) {
  const F g = f;
#pragma omp simd
  for (int i = 0; i < kGroup; ++i) y[i] = g(x[i]);
}
template <typename F, typename T>
WEFT_ONE_BODY void map_group(const F& f, const T* x, const T* y, T* z) {
  const F g = f;
#pragma omp simd
  for (int i = 0; i < kGroup; ++i) z[i] = g(x[i], y[i]);
}
template <typename F, typename T>
WEFT_ONE_BODY void map_group(const F& f, const T* x, const T* y, const T* z, T* w) {
  const F g = f;
#pragma omp simd
  for (int i = 0; i < kGroup; ++i) w[i] = g(x[i], y[i], z[i]);
}

template <typename T>
inline void copy_row(const T* from, T* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}

#ifdef __AVX512F__
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename T>
constexpr int64_t kLanesOf = kVectorBytes / static_cast<int64_t>(sizeof(T));
template <typename T>
struct LanesOf {
  typedef T Type __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};
// A word holds two elements of bf16, the even one below the odd one.
template <>
struct LanesOf<bfloat16> {
  typedef unsigned Type __attribute__((vector_size(kVectorBytes), aligned(2), may_alias));
};
template <>
struct LanesOf<const bfloat16> : LanesOf<bfloat16> {};
template <typename T>
using Lanes = typename LanesOf<T>::Type;
template <typename T>
inline Lanes<T>& lanes_at(T* x) {
  return *reinterpret_cast<Lanes<T>*>(x);
}
template <typename T>
inline const Lanes<T>& lanes_at(const T* x) {
  return *reinterpret_cast<const Lanes<T>*>(x);
}
// Halves are added to halves, in registers.
template <typename T, int64_t kHalf = kLanesOf<T> / 2>
inline T sum_of_lanes(const Lanes<T>& a) {
  if constexpr (kHalf == 0) {
    return a[0];
  } else {
    using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    Lanes<Index> upper{};
    for (int64_t lane = 0; lane < kHalf; ++lane) upper[lane] = static_cast<Index>(lane + kHalf);
    return sum_of_lanes<T, kHalf / 2>(a + __builtin_shuffle(a, upper));
  }
}

#ifdef __AVX512F__
inline void put_past(void* to, const __m512i& line) {
  _mm512_stream_si512(static_cast<__m512i*>(to), line);
}
typedef __m512i Line;
#elif defined(__AVX__)
inline void put_past(void* to, const __m256i& line) {
  _mm256_stream_si256(static_cast<__m256i*>(to), line);
}
typedef __m256i Line;
#else
inline void put_past(void* to, const __m128i& line) {
  _mm_stream_si128(static_cast<__m128i*>(to), line);
}
typedef __m128i Line;
#endif

// What a loop over a row takes at once: whole vectors, and the elements after the last one.
struct WholeLanes {
  template <typename T>
  static Lanes<T>& at(T* x) {
    return lanes_at(x);
  }
  template <typename T>
  static Lanes<T> at(const T* x) {
    return lanes_at(x);
  }
  template <typename T>
  static void put(bool past, T* y, const Lanes<T>& values) {
    if (past) return put_past(y, reinterpret_cast<Line>(values));
    lanes_at(y) = values;
  }
};
struct OneElement {
  template <typename T>
  static T& at(T* x) {
    return *x;
  }
  template <typename T>
  static void put(bool, T* y, T value) {
    *y = value;
  }
};

// act(one of these, i) over a row of T.
template <typename T, typename Act>
inline void for_row(int64_t n, const Act& act) {
  int64_t i = 0;
  for (; i + kLanesOf<T> <= n; i += kLanesOf<T>) act(WholeLanes(), i);
  for (; i < n; ++i) act(OneElement(), i);
}

// Whether lines of y may be written past the caches (past_caches.h).
template <typename T>
inline bool by_lines(bool past, const T* y) {
  return past && reinterpret_cast<uintptr_t>(y) % kVectorBytes == 0;
}

// ---- bf16 is computed in float, a vector's even elements beside its odd ones, so that none
// changes its lane.
template <typename T>
inline T widened(T x) {
  return x;
}
inline float widened(bfloat16 x) { return __builtin_bit_cast(float, uint32_t{x.bits} << 16); }
inline Lanes<float> evens_of(const Lanes<bfloat16>& words) {
  return reinterpret_cast<Lanes<float>>(words << 16);
}
inline Lanes<float> odds_of(const Lanes<bfloat16>& words) {
  return reinterpret_cast<Lanes<float>>(words & 0xFFFF0000U);
}
#ifdef __AVX512BF16__
struct InTurns {
  alignas(64) uint16_t of[32] = {};
  constexpr InTurns() {
    for (int i = 0; i < 32; ++i) of[i] = static_cast<uint16_t>(i / 2 + i % 2 * 16);
  }
};
constexpr InTurns kInTurns;
inline Lanes<bfloat16> rounded(const Lanes<float>& evens, const Lanes<float>& odds) {
  const __m512bh apart = _mm512_cvtne2ps_pbh(odds, evens);
  const __m512i turned = _mm512_permutexvar_epi16(_mm512_load_si512(kInTurns.of),
                                                  reinterpret_cast<const __m512i&>(apart));
  return reinterpret_cast<Lanes<bfloat16>>(turned);
}
#else
inline bool has_nan(const Lanes<float>& x, const Lanes<float>& y) {
#ifdef __AVX512F__
  return _mm512_cmp_ps_mask(x, y, _CMP_UNORD_Q) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_UNORD_Q)) != 0;
#else
  return _mm_movemask_ps(_mm_cmpunord_ps(x, y)) != 0;
#endif
}
// As round_bf16_body.h does, the results in the upper halves of words.
struct RoundedWords {
  Lanes<bfloat16> first, second;
  RoundedWords(const Lanes<float>& x, const Lanes<float>& y) {
    const auto a = reinterpret_cast<Lanes<bfloat16>>(x), b = reinterpret_cast<Lanes<bfloat16>>(y);
    first = nearest(a);
    second = nearest(b);
    if (has_nan(x, y)) {
      first = x != x ? a | 0x400000U : first;
      second = y != y ? b | 0x400000U : second;
    }
  }
  static Lanes<bfloat16> nearest(const Lanes<bfloat16>& word) {
    return word + ((word >> 16 & 1U) + 0x7FFFU);
  }
};
inline Lanes<bfloat16> rounded(const Lanes<float>& evens, const Lanes<float>& odds) {
  const RoundedWords words(evens, odds);
  return words.first >> 16 | (words.second & 0xFFFF0000U);
}
#endif

// ---- where results go: a vector of them or, of bf16, its evens and its odds.
template <typename S>
struct Written {
  S* at;
  bool past;
  void put(int64_t i, const Lanes<Wide<S>>& values) const { WholeLanes::put(past, at + i, values); }
  void put(int64_t i, const Lanes<float>& evens, const Lanes<float>& odds) const {
    WholeLanes::put(past, at + i, rounded(evens, odds));
  }
  // Elements before the first line that may go past the caches.
  int64_t head() const {
    constexpr uintptr_t kLine = 64;
    return past ? static_cast<int64_t>(-reinterpret_cast<uintptr_t>(at) % kLine / sizeof(S)) : 0;
  }
  // act(a padded copy of n elements from i on)
  template <typename Act>
  void on_copy(int64_t i, int64_t n, const Act& act) const {
    S few[kGroup] = {};
    act(Written{few, false});
    copy_row(few, at + i, n);
  }
};

template <typename S>
inline Written<S> written(const Target<S>& to) {
  return {to.at, to.past};
}

inline void add_in_turns(float* sums, const Lanes<float>& evens, const Lanes<float>& odds) {
  constexpr int kLanes = kLanesOf<float>, kHalf = kLanes / 2;
  [&]<int... i>(std::integer_sequence<int, i...>) {
    lanes_at(sums) += __builtin_shufflevector(evens, odds, (i / 2 + i % 2 * kLanes)...);
    lanes_at(sums + kLanes) +=
        __builtin_shufflevector(evens, odds, (kHalf + i / 2 + i % 2 * kLanes)...);
  }
  (std::make_integer_sequence<int, kLanes>());
}
// The evens (0) or odds (1) of two vectors that lie beside each other.
template <int kWhich>
inline Lanes<float> every_second(const Lanes<float>& low, const Lanes<float>& high) {
  return [&]<int... i>(std::integer_sequence<int, i...>)->Lanes<float> {
    return __builtin_shufflevector(low, high, (2 * i + kWhich)...);
  }
  (std::make_integer_sequence<int, kLanesOf<float>>());
}
// Also added to sums, before they are rounded.
template <typename S>
struct Added {
  Written<S> to;
  Wide<S>* sums;
  void put(int64_t i, const Lanes<Wide<S>>& values) const {
    to.put(i, values);
    lanes_at(sums + i) += values;
  }
  void put(int64_t i, const Lanes<float>& evens, const Lanes<float>& odds) const {
    to.put(i, evens, odds);
    add_in_turns(sums + i, evens, odds);
  }
  int64_t head() const { return to.head(); }
  template <typename Act>
  void on_copy(int64_t i, int64_t n, const Act& act) const {
    to.on_copy(i, n, [&](const Written<S>& few) {
      Wide<S> few_sums[kGroup] = {};
      copy_row(sums + i, few_sums, n);
      act(Added{few, few_sums});
      copy_row(few_sums, sums + i, n);
    });
  }
};

// ---- maps: of functions that say so by whole vectors (kByLanes) or, with AVX2, by packs of them
// (kByPacks), of others by groups.
template <typename F>
constexpr bool kByLanes = requires {
  requires F::kByLanes;
};
template <typename F>
constexpr bool kByPacks = requires {
  requires F::kByPacks;
};
#if defined(__AVX2__) && !defined(__AVX512F__)
#define WEFT_PACKS
#include "kernels/cpu/packs_avx2_body.h"
#else
template <typename S>
constexpr int64_t kPackOf = 0;  // nothing goes by packs
#endif
// What a map of f takes at once.
template <typename F, typename S>
constexpr int64_t kStepOf = kByPacks<F>   ? kPackOf<S>
                            : kByLanes<F> ? kLanesOf<S>
                                          : kGroup;

template <typename F, typename T, typename... From>
[[gnu::always_inline]] inline auto lanes_of(const F& f, int64_t i, const T* first,
                                            const From*... others) {
  // Copies: a type that F deduces of a reference forgets that its address is any multiple of T's.
  return f(WholeLanes::at(first + i), WholeLanes::at(others + i)...);
}

// Of halves in two steps: f.begin(x...), and end() of what that gives. The processor does not look
// ahead as far as chains of operations are long, so the first step of the next vector's evens or
// odds comes right after the second one of this vector's; hold() keeps the compiler from moving it.
template <typename F>
constexpr bool kInSteps = requires {
  requires F::kInSteps;
};
template <typename F, typename To, typename... From>
[[gnu::always_inline]] inline void put_in_steps(const F& f, const To& to, int64_t begin,
                                                int64_t end, const From*... rows) {
  constexpr int64_t kStep = kLanesOf<bfloat16>;
  if (begin == end) return;
  auto evens = f.begin(evens_of(lanes_at(rows + begin))...);
  auto odds = f.begin(odds_of(lanes_at(rows + begin))...);
  for (int64_t i = begin; i < end; i += kStep) {
    const int64_t next = i + kStep < end ? i + kStep : i;
    const Lanes<float> of_evens = evens.end();
    evens = f.begin(evens_of(lanes_at(rows + next))...);
    evens.hold();
    const Lanes<float> of_odds = odds.end();
    odds = f.begin(odds_of(lanes_at(rows + next))...);
    odds.hold();
    to.put(i, of_evens, of_odds);
  }
}

template <typename F, typename To, typename T, typename... From>
[[gnu::always_inline]] inline void put_lanes(const F& f, const To& to, int64_t i, const T* first,
                                             const From*... others) {
  to.put(i, lanes_of(f, i, first, others...));
}
template <typename F, typename To, typename... From>
[[gnu::always_inline]] inline void put_lanes(const F& f, const To& to, int64_t i,
                                             const bfloat16* first, const From*... others) {
  to.put(i, f(evens_of(lanes_at(first + i)), evens_of(lanes_at(others + i))...),
         f(odds_of(lanes_at(first + i)), odds_of(lanes_at(others + i))...));
}
template <typename F, typename To, typename S, typename... From>
WEFT_ONE_BODY void map_lanes(const F& f, const To& to, int64_t begin, int64_t end, const S* first,
                             const From*... others) {
  constexpr int64_t kLanes = kLanesOf<S>;
  const F g = f;
  const To here = to;
  if constexpr (kInSteps<F>) {
    put_in_steps(g, here, begin, end, first, others...);
  } else {
    int64_t i = begin;
#ifdef __AVX512F__
    // Operations of a vector wait for each other, and a processor looks ahead no further than two
    // or three vectors: the compiler takes those of four in turns (CMakeLists.txt).
    if constexpr (sizeof(S) == sizeof(float)) {
      for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
        const auto a = lanes_of(g, i, first, others...);
        const auto b = lanes_of(g, i + kLanes, first, others...);
        const auto c = lanes_of(g, i + 2 * kLanes, first, others...);
        const auto d = lanes_of(g, i + 3 * kLanes, first, others...);
        here.put(i, a);
        here.put(i + kLanes, b);
        here.put(i + 2 * kLanes, c);
        here.put(i + 3 * kLanes, d);
      }
    }
#endif
    for (; i < end; i += kLanes) put_lanes(g, here, i, first, others...);
  }
}

// A group as it is computed with: where it lies, or, of bf16, the evens of each vector before its
// odds.
template <typename S>
struct Group {
  explicit Group(const S* x) : at(x) {}
  const S* at;
};
template <>
struct Group<bfloat16> {
  explicit Group(const bfloat16* x) {
    for (int64_t i = 0; i < kGroup; i += kLanesOf<bfloat16>) {
      lanes_at(at + i) = evens_of(lanes_at(x + i));
      lanes_at(at + i + kLanesOf<float>) = odds_of(lanes_at(x + i));
    }
  }
  float at[kGroup];
};
template <typename S, typename To>
inline void put_group(const To& to, int64_t at, const Wide<S>* group) {
  for (int64_t i = 0; i < kGroup; i += kLanesOf<S>) {
    if constexpr (sizeof(S) == sizeof(Wide<S>)) {
      to.put(at + i, WholeLanes::at(group + i));
    } else {
      to.put(at + i, WholeLanes::at(group + i), WholeLanes::at(group + i + kLanesOf<float>));
    }
  }
}
template <typename F, typename To, typename S, typename... From>
inline void map_groups(const F& f, const To& to, int64_t begin, int64_t end, const S* first,
                       const From*... others) {
  for (int64_t i = begin; i < end; i += kGroup) {
    if constexpr (std::is_same_v<To, Written<Wide<S>>>) {
      if (!to.past) {
        map_group(f, first + i, (others + i)..., to.at + i);
        continue;
      }
    }
    alignas(64) Wide<S> results[kGroup];
    map_group(f, +Group<S>(first + i).at, +Group<S>(others + i).at..., results);
    put_group<S>(to, i, results);
  }
}

template <typename F, typename To, typename S, typename... From>
inline void map_whole(const F& f, const To& to, int64_t begin, int64_t end, const S* first,
                      const From*... others) {
  if constexpr (kByPacks<F>) {
    map_packs(f, to, begin, end, first, others...);
  } else if constexpr (kByLanes<F>) {
    map_lanes(f, to, begin, end, first, others...);
  } else {
    map_groups(f, to, begin, end, first, others...);
  }
}

// Fewer elements, on padded copies.
template <typename F, typename To, typename S, typename... From>
WEFT_ONE_BODY void map_few(const F& f, const To& to, int64_t i, int64_t n, const S* first,
                           const From*... others) {
  if (n == 0) return;
  constexpr int kCount = 1 + sizeof...(others);
  constexpr int64_t kStep = kStepOf<F, S>;
  const int64_t whole = (n + kStep - 1) / kStep * kStep;
  const S* const rows[kCount] = {first + i, (others + i)...};
  S few[kCount][kGroup] = {};
  for (int k = 0; k < kCount; ++k) copy_row(rows[k], few[k], n);
  to.on_copy(i, n, [&](const To& copy) {
    if constexpr (kCount == 1) map_whole(f, copy, 0, whole, few[0]);
    if constexpr (kCount == 2) map_whole(f, copy, 0, whole, few[0], few[1]);
    if constexpr (kCount == 3) map_whole(f, copy, 0, whole, few[0], few[1], few[2]);
  });
}

// to.put(i, f(first[i], others[i]...)) for i < n
template <typename F, typename To, typename S, typename... From>
inline void map(const F& f, int64_t n, const To& to, const S* first, const From*... others) {
  constexpr int64_t kWhole = kStepOf<F, S>;
  const int64_t before = to.head(), head = before < n ? before : n, end = n - (n - head) % kWhole;
  map_few(f, to, 0, head, first, others...);
  map_whole(f, to, head, end, first, others...);
  map_few(f, to, end, n - end, first, others...);
}
