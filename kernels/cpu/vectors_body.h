// The loops of vectors.h. Included once by each vectors_v*.cc, inside a namespace of its own, with
// that file's instruction set; nothing here may call an inline function of another header, whose
// code the linker would share between the levels.

#include "kernels/cpu/whole_rows_body.h"

// ---- functions of one number: value and slope. V: a number, or a vector or pack of them.
template <Unary kKind, typename V, typename T>
inline V value_of(const V& x, T a, T b) {
  if constexpr (kKind == Unary::kNegate) return -x;
  if constexpr (kKind == Unary::kAbs) return abs_of(x);
  if constexpr (kKind == Unary::kExp) return exp_of(x);
  if constexpr (kKind == Unary::kLog) return log_of(x);
  if constexpr (kKind == Unary::kSqrt) return sqrt_of(x);
  if constexpr (kKind == Unary::kRsqrt) return T{1} / sqrt_of(x);
  if constexpr (kKind == Unary::kSquare) return x * x;
  if constexpr (kKind == Unary::kPower) return pow_of(x, a);
  if constexpr (kKind == Unary::kClamp) {
    const V above = chosen(x < a, a, x);
    return chosen(above > b, b, above);
  }
  if constexpr (kKind == Unary::kSoftplus) {
    return chosen(x > T{0}, x, T{0}) + log1p_of(exp_of(-abs_of(x)));
  }
  if constexpr (kKind == Unary::kLeakyRelu) return chosen(x > T{0}, x, a * x);
  if constexpr (kKind == Unary::kElu) {
    return chosen(x > T{0}, x, a * expm1_of(chosen(x > T{0}, T{0}, x)));
  }
  if constexpr (kKind == Unary::kEluPlusOne) {
    return chosen(x > T{0}, x + T{1}, exp_of(V(chosen(x > T{0}, T{0}, x))));
  }
  if constexpr (kKind == Unary::kHardSigmoid || kKind == Unary::kHardSwish) {
    const V sixth = x * (T{1} / T{6}) + T(0.5), low = chosen(sixth < T{0}, T{0}, sixth);
    const V hard = chosen(low > T{1}, T{1}, low);
    if constexpr (kKind == Unary::kHardSigmoid) return hard;
    if constexpr (kKind == Unary::kHardSwish) return x * hard;
  }
  if constexpr (kKind == Unary::kQuickGelu) return x * gate_of(T(-1.702) * x);
}

template <Unary kKind, typename V, typename T>
inline V slope_of(const V& x, T a, T b) {
  if constexpr (kKind == Unary::kNegate) return V{} - T{1};
  if constexpr (kKind == Unary::kAbs) return chosen(x > T{0}, T{1}, chosen(x < T{0}, T{-1}, T{0}));
  if constexpr (kKind == Unary::kExp) return exp_of(x);
  if constexpr (kKind == Unary::kLog) return T{1} / x;
  if constexpr (kKind == Unary::kSqrt) return T(0.5) / sqrt_of(x);
  if constexpr (kKind == Unary::kRsqrt) return T(-0.5) / (x * sqrt_of(x));
  if constexpr (kKind == Unary::kSquare) return T{2} * x;
  if constexpr (kKind == Unary::kPower) return a == T{0} ? T{0} : a * pow_of(x, a - T{1});
  if constexpr (kKind == Unary::kClamp) {
    return chosen(x >= a, V(chosen(x <= b, T{1}, T{0})), V{});
  }
  if constexpr (kKind == Unary::kSoftplus) return sigmoid_of(x);
  if constexpr (kKind == Unary::kLeakyRelu) return chosen(x > T{0}, T{1}, a);
  if constexpr (kKind == Unary::kElu) {
    return chosen(x > T{0}, T{1}, a * exp_of(V(chosen(x > T{0}, T{0}, x))));
  }
  if constexpr (kKind == Unary::kEluPlusOne) {
    return chosen(x > T{0}, T{1}, exp_of(V(chosen(x > T{0}, T{0}, x))));
  }
  if constexpr (kKind == Unary::kHardSigmoid) {
    const V rising = chosen(x > T{-3}, T{1} / T{6}, T{0});
    return chosen(x < T{3}, rising, T{0});
  }
  if constexpr (kKind == Unary::kHardSwish) {  // of NaN NaN
    const V rising = chosen(x <= T{-3}, T{0}, x * (T{1} / T{3}) + T(0.5));
    return chosen(x >= T{3}, T{1}, rising);
  }
  if constexpr (kKind == Unary::kQuickGelu) {
    const V s = gate_of(T(-1.702) * x);
    return s + x * (s * (T{1} - s)) * T(1.702);  // 0 first: the greatest x times 1.7 is infinite
  }
}

// The C library has a vector version of these alone, which a loop over single numbers calls.
template <Unary kKind>
constexpr bool kBySingles = kKind == Unary::kPower || kKind == Unary::kElu;

template <Unary kKind, typename T>
struct Value {
  static constexpr bool kByLanes = kVectorMath<T> && !kBySingles<kKind>;
  static constexpr bool kByPacks = kPackMath<T> && !kBySingles<kKind>;
  T a, b;
  template <typename V>
  V operator()(const V& x) const {
    return value_of<kKind>(x, a, b);
  }
};
template <Unary kKind, typename T>
struct Slope {
  static constexpr bool kByLanes = kVectorMath<T> && kKind != Unary::kPower;
  static constexpr bool kByPacks = kPackMath<T> && kKind != Unary::kPower;
  T a, b;
  template <typename V>
  V operator()(const V& x, const V& dy) const {
    return dy * slope_of<kKind>(x, a, b);
  }
};

// f.operator()<kind>() for the kind at run time.
template <typename F>
inline void with_kind(Unary kind, F&& f) {
  switch (kind) {
    case Unary::kNegate:
      return f.template operator()<Unary::kNegate>();
    case Unary::kAbs:
      return f.template operator()<Unary::kAbs>();
    case Unary::kExp:
      return f.template operator()<Unary::kExp>();
    case Unary::kLog:
      return f.template operator()<Unary::kLog>();
    case Unary::kSqrt:
      return f.template operator()<Unary::kSqrt>();
    case Unary::kRsqrt:
      return f.template operator()<Unary::kRsqrt>();
    case Unary::kSquare:
      return f.template operator()<Unary::kSquare>();
    case Unary::kPower:
      return f.template operator()<Unary::kPower>();
    case Unary::kClamp:
      return f.template operator()<Unary::kClamp>();
    case Unary::kSoftplus:
      return f.template operator()<Unary::kSoftplus>();
    case Unary::kLeakyRelu:
      return f.template operator()<Unary::kLeakyRelu>();
    case Unary::kElu:
      return f.template operator()<Unary::kElu>();
    case Unary::kHardSigmoid:
      return f.template operator()<Unary::kHardSigmoid>();
    case Unary::kHardSwish:
      return f.template operator()<Unary::kHardSwish>();
    case Unary::kQuickGelu:
      return f.template operator()<Unary::kQuickGelu>();
    case Unary::kEluPlusOne:
      return f.template operator()<Unary::kEluPlusOne>();
  }
}

// Functions that take longer than memory: past the caches their values come no sooner.
template <Unary kKind, typename T>
constexpr bool kLong = (kKind == Unary::kExp || kKind == Unary::kLog || kKind == Unary::kSoftplus ||
                        kBySingles<kKind>)&&!kByLanes<Value<kKind, T>> &&
                       !kByPacks<Value<kKind, T>>;

template <typename S, typename T = Wide<S>>
void unary(Unary kind, T a, T b, const S* x, Target<S> y, int64_t n) {
  with_kind(kind, [&]<Unary kKind>() {
    map(Value<kKind, T>{a, b}, n, Written<S>{y.at, y.past && !kLong<kKind, T>}, x);
  });
}
template <typename S, typename T = Wide<S>>
void unary_backward(Unary kind, T a, T b, const S* x, const S* dy, Target<S> dx, int64_t n) {
  with_kind(kind, [&]<Unary kKind>() { map(Slope<kKind, T>{a, b}, n, written(dx), x, dy); });
}

// ---- two results
template <typename V>
struct Two {
  V first, second;
};
// Two results of as many elements, both past the caches where both may be.
template <typename S>
struct BothWritten {
  Written<S> first, second;
  BothWritten(Written<S> a, Written<S> b) : first(a), second(b) {
    second.past = first.past && second.past && first.head() == second.head();
    first.past = second.past;
  }
  int64_t head() const { return first.head(); }
  template <typename V>
  void put(int64_t i, const Two<V>& values) const {
    first.put(i, values.first);
    second.put(i, values.second);
  }
  template <typename V>
  void put(int64_t i, const Two<V>& evens, const Two<V>& odds) const {
    first.put(i, evens.first, odds.first);
    second.put(i, evens.second, odds.second);
  }
  template <typename Act>
  void on_copy(int64_t i, int64_t n, const Act& act) const {
    first.on_copy(i, n, [&](const Written<S>& a) {
      second.on_copy(i, n, [&](const Written<S>& b) { act(BothWritten(a, b)); });
    });
  }
};
template <typename S, typename V>
inline void put_pack(const BothWritten<S>& to, int64_t i, const Two<V>& packs) {
  put_pack<S>(to.first, i, packs.first);
  put_pack<S>(to.second, i, packs.second);
}
// ---- functions of two: single operations, which nothing contracts
// f of one or two vectors.
template <typename F>
struct OfLanes {
  static constexpr bool kByLanes = true;
  F f;
  template <typename... V>
  auto operator()(const V&... x) const {
    return f(x...);
  }
};
// z = f(x) of a row x, or (step 0) of one number for all.
template <typename F, typename S>
inline void one_or_row(const F& f, const S* x, int64_t step, Target<S> z, int64_t n) {
  if (step == 1) return map(f, n, written(z), x);
  if (n == 0) return;
  S same[1];
  map(f, 1, Written<S>{same, false}, x);
  for (int64_t i = 0; i < n; ++i) z.at[i] = same[0];
}
template <typename F, typename S>
inline void combine_lanes(F f, const S* x, int64_t step_x, const S* y, int64_t step_y, Target<S> z,
                          int64_t n) {
  using V = Lanes<Wide<S>>;
  const OfLanes<F> both{f};
  if (step_x == 1 && step_y == 1) return map(both, n, written(z), x, y);
  if (n == 0) return;
  const V same = widened(step_y == 0 ? *y : *x) - V{};  // of -0 it, too
  if (step_y == 0) {
    const auto second = [f, same](const V& v) { return f(v, same); };
    return one_or_row(OfLanes<decltype(second)>{second}, x, step_x, z, n);
  }
  const auto first = [f, same](const V& v) { return f(same, v); };
  map(OfLanes<decltype(first)>{first}, n, written(z), y);
}

template <typename S>
void binary(Binary kind, const S* x, int64_t sx, const S* y, int64_t sy, Target<S> z, int64_t n) {
  using V = Lanes<Wide<S>>;
  const auto by = [=](auto f) { combine_lanes(f, x, sx, y, sy, z, n); };
  switch (kind) {
    case Binary::kAdd:
      return by([](const V& p, const V& q) { return p + q; });
    case Binary::kSubtract:
      return by([](const V& p, const V& q) { return p - q; });
    case Binary::kMultiply:
      return by([](const V& p, const V& q) { return p * q; });
    case Binary::kDivide:
      return by([](const V& p, const V& q) { return p / q; });
    case Binary::kMinimum:  // NaN where one is
      return by([](const V& p, const V& q) { return (q < p) | (q != q) ? q : p; });
    case Binary::kMaximum:
      return by([](const V& p, const V& q) { return (q > p) | (q != q) ? q : p; });
  }
}

template <typename S>
void scale(Wide<S> factor, const S* x, int64_t step, Target<S> y, int64_t n) {
  using V = Lanes<Wide<S>>;
  const V same = factor - V{};  // of -0 it, too
  const auto times = [same](const V& v) { return v * same; };
  one_or_row(OfLanes<decltype(times)>{times}, x, step, y, n);
}

// Of the larger of two numbers, or the smaller: both gradients, dy to the one that is it, half of
// it to each where they are equal, all of it to both where one is NaN.
template <bool kLarger>
struct ExtremeGradient {
  static constexpr bool kByLanes = true;
  template <typename V>
  Two<V> operator()(const V& x, const V& y, const V& dy) const {
    const V half = dy * 0.5F, none{}, share = x == y ? half : dy;
    return {(kLarger ? x < y : x > y) ? none : share, (kLarger ? y < x : y > x) ? none : share};
  }
};
template <typename S>
void extreme_backward(bool larger, const S* x, const S* y, const S* dy, Target<S> dx,
                      Target<S> to_y, int64_t n) {
  const BothWritten<S> both(written(dx), written(to_y));
  if (larger) return map(ExtremeGradient<true>(), n, both, x, y, dy);
  map(ExtremeGradient<false>(), n, both, x, y, dy);
}

// ---- comparisons
template <typename F, typename T>
inline void combine(F f, const T* x, int64_t step_x, const T* y, int64_t step_y, uint8_t* z,
                    int64_t n) {
  if (step_x == 1 && step_y == 1) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) z[i] = f(x[i], y[i]);
  } else if (step_x == 1) {
    const T same = *y;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) z[i] = f(x[i], same);
  } else if (step_y == 1) {
    const T same = *x;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) z[i] = f(same, y[i]);
  } else {
    const uint8_t same = f(*x, *y);
    for (int64_t i = 0; i < n; ++i) z[i] = same;
  }
}

template <typename T>
void compare(Compare kind, const T* x, int64_t sx, const T* y, int64_t sy, uint8_t* z, int64_t n) {
  switch (kind) {
    case Compare::kEqual:
      return combine([](T p, T q) { return uint8_t{p == q}; }, x, sx, y, sy, z, n);
    case Compare::kNotEqual:
      return combine([](T p, T q) { return uint8_t{p != q}; }, x, sx, y, sy, z, n);
    case Compare::kLess:
      return combine([](T p, T q) { return uint8_t{p < q}; }, x, sx, y, sy, z, n);
    case Compare::kLessEqual:
      return combine([](T p, T q) { return uint8_t{p <= q}; }, x, sx, y, sy, z, n);
    case Compare::kGreater:
      return combine([](T p, T q) { return uint8_t{p > q}; }, x, sx, y, sy, z, n);
    case Compare::kGreaterEqual:
      return combine([](T p, T q) { return uint8_t{p >= q}; }, x, sx, y, sy, z, n);
  }
}

template <typename T>
void where(const uint8_t* mask, int64_t sm, const T* x, int64_t sx, const T* y, int64_t sy, T* z,
           int64_t n) {
  if (sm == 1 && sx == 1 && sy == 1) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) z[i] = mask[i] != 0 ? x[i] : y[i];
  } else if (sm == 1 && sx == 1 && sy == 0) {
    const T same = *y;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) z[i] = mask[i] != 0 ? x[i] : same;
  } else {
    for (int64_t i = 0; i < n; ++i) z[i] = mask[i * sm] != 0 ? x[i * sx] : y[i * sy];
  }
}

// ---- fused
template <typename S>
struct SwiGlu {
  static constexpr bool kByLanes = kVectorMath<Wide<S>>, kByPacks = kPackMath<Wide<S>>;
  template <typename V>
  V operator()(const V& g, const V& u) const {
    return g * sigmoid_for<S>(g) * u;
  }
};
template <typename T>
struct SwiGluGate {
  static constexpr bool kByLanes = kVectorMath<T>;
  template <typename V>
  V operator()(const V& g, const V& u, const V& dy) const {
    const V s = gate_of(-g);
    return dy * u * (s * (T{1} + g * (T{1} - s)));
  }
};
template <typename S>
void swiglu(const S* gate, const S* up, Target<S> y, int64_t n) {
  map(SwiGlu<S>(), n, written(y), gate, up);
}
template <typename S>
struct SwiGluBoth {
  static constexpr bool kByLanes = kVectorMath<Wide<S>>, kByPacks = kPackMath<Wide<S>>;
  template <typename V>
  Two<V> operator()(const V& g, const V& u, const V& dy) const {
    const V s = sigmoid_for<S>(g);
    return {dy * u * (s * (1.0F + g * (1.0F - s))), g * s * dy};
  }
};
template <typename S>
void swiglu_backward(const S* gate, const S* up, const S* dy, Target<S> dgate, Target<S> dup,
                     int64_t n) {
  if constexpr (kVectorMath<Wide<S>> || kPackMath<Wide<S>>) {
    map(SwiGluBoth<S>(), n, BothWritten<S>(written(dgate), written(dup)), gate, up, dy);
  } else {
    constexpr int64_t kPiece = 1024;  // stays in the nearest cache for the second pass
    for (int64_t i = 0; i < n; i += kPiece) {
      const int64_t count = n - i < kPiece ? n - i : kPiece;
      map(SwiGluGate<Wide<S>>(), count, Written<S>{dgate.at + i, dgate.past}, gate + i, up + i,
          dy + i);
      map(SwiGlu<S>(), count, Written<S>{dup.at + i, dup.past}, gate + i, dy + i);
    }
  }
}

template <typename T>
void rotate(const T* even, const T* odd, const T* cos, const T* sin, T direction, int64_t ahead,
            Target<T> to_even, Target<T> to_odd, int64_t n) {
  const bool past = by_lines(to_even.past, to_even.at) && by_lines(to_odd.past, to_odd.at);
  for_row<T>(n, [=](auto by, int64_t i) {
    if (i * int64_t{sizeof(T)} % 64 == 0) {
      fetch_line(even + ahead + i);
      fetch_line(odd + ahead + i);
    }
    const auto p = by.at(even + i), q = by.at(odd + i);
    const auto c = by.at(cos + i), turn = by.at(sin + i) * direction;
    by.put(past, to_even.at + i, p * c - q * turn);
    by.put(past, to_odd.at + i, q * c + p * turn);
  });
}
template <typename T>
void rotate_pairs(const T* x, const T* cos, const T* sin, T direction, T* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T p = x[2 * i], q = x[2 * i + 1], turn = sin[i] * direction;
    y[2 * i] = p * cos[i] - q * turn;
    y[2 * i + 1] = q * cos[i] + p * turn;
  }
}

#include "kernels/cpu/vectors_norms_body.h"
#include "kernels/cpu/vectors_sums_body.h"

template <typename S>
constexpr ElementKernels<S> element_table() {
  return {unary<S>,  unary_backward<S>, binary<S>,          scale<S>,         extreme_backward<S>,
          where<S>,  swiglu<S>,         swiglu_backward<S>, moments<S>,       gradient_sums<S>,
          affine<S>, norm_gradient<S>,  running_sums<S>,    add_to_running<S>};
}
template <typename T>
constexpr VectorKernels<T> table() {
  return {element_table<T>(), compare<T>, rotate<T>, rotate_pairs<T>, extreme<T>};
}
constexpr VectorKernels<bfloat16> table_of_halves() { return {element_table<bfloat16>()}; }
