// The loops of rows.h. Included once by each rows_v*.cc, inside a namespace of its own, with that
// file's instruction set; nothing here may call an inline function of another header, whose code
// the linker would share between the levels.
//
// Numerical policy: float accumulates in float over the vector's lanes; see math_body.h.

#include "kernels/cpu/whole_rows_body.h"

// ---- curves, each of a row of S
// gelu(x) = x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3), which is x / (1 + e^-2u).
template <typename S>
struct GeluTanh {
  using T = Wide<S>;
  static constexpr bool kByLanes = kVectorMath<T>, kByPacks = kPackMath<T>;
  static constexpr T kTwoRoot = T(1.5957691216057308), kCube = T(0.044715) * kTwoRoot;
  // x to where e^-2u is infinity, 88.72 <= -2u <= 88.73, and to where it does not show beside 1.
  static constexpr bool kSingle = sizeof(T) == sizeof(float);
  static constexpr float kLowest = kSingle ? -10.061F : -kFar, kHighest = kSingle ? 9.9F : kFar;
  template <typename V>
  static V near(const V& x) {  // of NaN one of them
    return cut_of<kLowest, kHighest>(x);
  }
  static double near(double x) { return near_or_nan(x); }
  template <typename V>
  static V near_or_nan(const V& x) {
    return at_least(kLowest, at_most(kHighest, x));
  }
  template <typename V>
  static V one_and_exp(const V& near) {
    return one_and_exp_of(near * (-kTwoRoot - kCube * (near * near)));
  }
#ifdef __AVX512F__
  static Floats one_and_exp(const Floats& near) {
    constexpr float kLine = -2.30220819814F, kThird = 0.044715F * kLine;  // -kTwoRoot log2(e)
    return one_and(power_of(near * (kLine + kThird * (near * near))));
  }
#endif
  template <typename V>
  static V value(const V& x) {
    return at_least(-kFar, x) / one_and_exp(near(x));
  }
  template <typename V>
  static V slope(const V& x) {
    const V cut = near_or_nan(x), s = T{1} / one_and_exp(cut);
    return s + s * (T{1} - s) * cut * (kTwoRoot + 3 * kCube * (cut * cut));
  }
};
template <typename S>
struct GeluErf {
  using T = Wide<S>;
  static constexpr bool kByPacks = kPackMath<T>;
  template <typename V>
  static V value(const V& x) {
    const V a = at_most(kFar, abs_of(x));
    return at_least(-0.0F, x) - a * Normal<V>(a).value();
  }
  template <typename V>
  static V slope(const V& x) {
    const V a = at_most(kFar, abs_of(x));
    const V below = Normal<V>(a).less_bells(a * T(0.3989422804014327));
    return chosen(x < V(T{0}), below, T{1} - below);
  }
};
template <typename S>
struct Relu {  // NaN stays, so that it is found at the loss
  using T = Wide<S>;
  static constexpr bool kByLanes = kVectorMath<T>, kByPacks = kPackMath<T>;
  template <typename V>
  static V value(const V& x) {
    return chosen(x <= T{0}, T{0}, x);
  }
  template <typename V>
  static V slope(const V& x) {
    return chosen(x <= T{0}, T{0}, T{1});
  }
};
template <typename S>
struct Silu {
  using T = Wide<S>;
  static constexpr bool kByLanes = kVectorMath<T>, kByPacks = kPackMath<T>;
  template <typename V>
  static V value(const V& x) {
    return x * sigmoid_for<S>(x);
  }
  template <typename V>
  static V slope(const V& x) {
    const V s = sigmoid_for<S>(x);
    return s * (T{1} + x * (T{1} - s));
  }
};
template <typename S>
struct Tanh {
  using T = Wide<S>;
  static constexpr bool kByLanes = kVectorMath<T>, kByPacks = kPackMath<T>;
  template <typename V>
  static V value(const V& x) {
    return tanh_of(x);
  }
  template <typename V>
  static V slope(const V& x) {
    const V t = tanh_of(x);
    return T{1} - t * t;
  }
};
template <typename S>
struct Sigmoid {
  using T = Wide<S>;
  static constexpr bool kByLanes = kVectorMath<T>, kByPacks = kPackMath<T>;
  template <typename V>
  static V value(const V& x) {
    return sigmoid_of(x);
  }
  template <typename V>
  static V slope(const V& x) {
    const V s = sigmoid_of(x);
    return s * (T{1} - s);
  }
};

#ifdef __AVX512F__
#include "kernels/cpu/gelu_avx512_body.h"
#endif

template <typename F>
struct ValueOf {
  static constexpr bool kByLanes = requires { requires F::kByLanes; };
  static constexpr bool kByPacks = requires { requires F::kByPacks; };
  template <typename V>
  V operator()(const V& x) const {
    return F::value(x);
  }
};
template <typename F>
struct GradientOf {
  static constexpr bool kByLanes = requires { requires F::kByLanes; };
  static constexpr bool kByPacks = requires { requires F::kByPacks; };
  template <typename V>
  V operator()(const V& x, const V& dy) const {
    return dy * F::slope(x);
  }
};
#ifdef __AVX512F__
template <typename F>
requires requires { typename F::Slope; }
struct GradientOf<F> {
  static constexpr bool kByLanes = true, kInSteps = true;
  struct Begun {
    typename F::Slope slope;
    Floats dy;
    void hold() { slope.hold(); }
    Floats end() const { return dy * slope.end(); }
  };
  Begun begin(const Floats& x, const Floats& dy) const { return {typename F::Slope(x), dy}; }
};
#endif
// act.operator()<F>() for the curve at run time.
template <typename S, typename Act>
inline void with_curve(Curve curve, const Act& act) {
  switch (curve) {
    case Curve::kGeluTanh:
      return act.template operator()<GeluTanh<S>>();
    case Curve::kGeluErf:
      return act.template operator()<GeluErf<S>>();
    case Curve::kRelu:
      return act.template operator()<Relu<S>>();
    case Curve::kSilu:
      return act.template operator()<Silu<S>>();
    case Curve::kTanh:
      return act.template operator()<Tanh<S>>();
    case Curve::kSigmoid:
      return act.template operator()<Sigmoid<S>>();
  }
}

template <typename S>
void curve(Curve curve, const S* x, Target<S> y, int64_t n) {
  with_curve<S>(curve, [=]<typename F>() { map(ValueOf<F>(), n, written(y), x); });
}
template <typename S>
void curve_backward(Curve curve, const S* x, const S* dy, Target<S> dx, int64_t n) {
  with_curve<S>(curve, [=]<typename F>() { map(GradientOf<F>(), n, written(dx), x, dy); });
}

#ifdef __AVX512F__
// Where gradients of rows of halves go that are summed: sums stand apart for a vector's evens and
// odds, so that nothing is turned. Of rows longer than a page the next one's lines are fetched.
struct AddedApart {
  Written<bfloat16> to;
  float* sums;
  const bfloat16 *next_x, *next_dy;
  bool far;
  void put(int64_t i, const Floats& evens, const Floats& odds) const {
    if (far) fetch_line(next_x + i), fetch_line(next_dy + i);
    to.put(i, evens, odds);
    lanes_at(sums + i) += evens;
    lanes_at(sums + i + kLanesOf<float>) += odds;
  }
};
// Whole vectors of each row go so, and past the caches only where the row begins with a line; what
// is left of it is added to the sums as they are.
template <typename F>
void add_gradients(const F& f, const bfloat16* x, const bfloat16* dy, Target<bfloat16> dx,
                   float* sums, int64_t rows, int64_t n) {
  constexpr int64_t kStep = kLanesOf<bfloat16>, kHalf = kLanesOf<float>;
  const int64_t whole = n / kStep * kStep;
  for (int64_t i = 0; i < whole; i += kStep) {
    const Floats low = lanes_at(sums + i), high = lanes_at(sums + i + kHalf);
    lanes_at(sums + i) = every_second<0>(low, high);
    lanes_at(sums + i + kHalf) = every_second<1>(low, high);
  }
  for (int64_t at = 0; at < rows * n; at += n) {
    const bool lines = by_lines(dx.past, dx.at + at), far = n * int64_t{sizeof(*x)} > 4096;
    const AddedApart to{{dx.at + at, lines}, sums, x + at + n, dy + at + n, dx.past && far};
    put_in_steps(f, to, 0, whole, x + at, dy + at);
    const Added<bfloat16> left{{dx.at + at + whole, false}, sums + whole};
    map(f, n - whole, left, x + at + whole, dy + at + whole);
  }
  for (int64_t i = 0; i < whole; i += kStep) {
    const Floats evens = lanes_at(sums + i), odds = lanes_at(sums + i + kHalf);
    lanes_at(sums + i) = lanes_at(sums + i + kHalf) = Floats{};
    add_in_turns(sums + i, evens, odds);
  }
}
#endif
template <typename S>
void curve_backward_sum(Curve curve, const S* x, const S* dy, Target<S> dx, Wide<S>* sums,
                        int64_t rows, int64_t n) {
  with_curve<S>(curve, [=]<typename F>() {
    const GradientOf<F> f;
    if constexpr (kInSteps<GradientOf<F>>) {
      add_gradients(f, x, dy, dx, sums, rows, n);
    } else {
      for (int64_t at = 0; at < rows * n; at += n) {
        const Target<S> to(dx.at + at, dx.past);
        map(f, n, Added<S>{written(to), sums}, x + at, dy + at);
      }
    }
  });
}

template <typename T>
T sum(const T* x, int64_t n) {
  constexpr int64_t kAhead = 2048;  // elements: the processor itself does not look past a page
  const auto element = [](const auto& v) { return v; };
  const auto later = [=](int64_t i) { fetch_group(x + kAhead + i); };
  return sum_fetching<T>(n, later, element, x);
}

template <typename T>
T dot(const T* a, const T* b, int64_t n) {
  const auto product = [](const auto& u, const auto& v) { return u * v; };
  return sum_over<T>(n, product, a, b);
}

template <typename T>
T max(const T* x, int64_t n) {
  return max_over(x, n);
}

template <typename T>
T exp_shifted(const T* x, T shift, T factor, T* y, int64_t n) {
  return sum_of_exp(x, shift, n, [=](auto by, int64_t i, const auto& e) {
    const auto value = factor * e;
    by.put(false, y + i, value);
    return value;
  });
}

template <typename T>
void scale(T factor, T* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

template <typename T>
void add(const T* x, T* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

// Four rows at a time, so that y is read and written a fourth as often and four streams come from
// memory. The rows after them are fetched meanwhile, into the second-level cache: where rows are a
// power of two apart, their lines share a set of the first, which does not hold so many.
template <typename T>
void add_rows(const T* x, int64_t stride, int64_t rows, T* y, int64_t n) {
  constexpr int64_t kRows = 4, kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (; rows >= kRows; rows -= kRows, x += kRows * stride) {
    const auto add_at = [=](auto by, int64_t i) {
      auto sum = by.at(y + i);
      for (int64_t row = 0; row < kRows; ++row) sum += by.at(x + row * stride + i);
      by.at(y + i) = sum;
    };
    int64_t i = 0;
    for (; i + kLine <= n; i += kLine) {
      for (int64_t row = kRows; row < 2 * kRows; ++row) {
        __builtin_prefetch(x + row * stride + i, 0, 2);
      }
      for (int64_t k = i; k < i + kLine; k += kLanesOf<T>) add_at(WholeLanes(), k);
    }
    for (; i < n; ++i) add_at(OneElement(), i);
  }
  for (; rows > 0; --rows, x += stride) add(x, y, n);
}

template <typename T>
void multiply(const T* x, T* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] *= x[i];
}

template <typename T>
void softmax_gradient(const T* p, const T* dp, T delta, T factor, T* ds, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) ds[i] = factor * p[i] * (dp[i] - delta);
}

template <typename T>
T log_sum_exp(const T* x, int64_t n) {
  const T largest = max(x, n);
  if (largest == -T(__builtin_inff())) return largest;
  const T total = sum_of_exp(x, largest, n, [](auto, int64_t, const auto& e) { return e; });
  return largest + static_cast<T>(__builtin_log(static_cast<double>(total)));
}

#include "kernels/cpu/draw_body.h"

template <typename T>
constexpr RowKernels<T> table() {
  return {curve<T>,
          curve_backward<T>,
          curve_backward_sum<T>,
          log_sum_exp<T>,
          exp_shifted<T>,
          sum<T>,
          dot<T>,
          max<T>,
          scale<T>,
          add<T>,
          add_rows<T>,
          multiply<T>,
          draw_kept<T>,
          drop<T>,
          softmax_gradient<T>};
}
constexpr RowKernels<bfloat16> table_of_halves() {
  return {curve<bfloat16>, curve_backward<bfloat16>, curve_backward_sum<bfloat16>, drop<bfloat16>};
}
