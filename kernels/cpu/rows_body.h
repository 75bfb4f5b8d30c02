// The loops of rows.h. Included once by each rows_v*.cc, inside a namespace of its own, with that
// file's instruction set; nothing here may call an inline function of another header, whose code
// the linker would share between the levels.
//
// Numerical policy: float accumulates in float over the vector's lanes; see math_body.h.

#include "kernels/cpu/map_body.h"
#include "kernels/cpu/math_body.h"

// gelu(x) = x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3), which is x sigmoid(2u).
template <typename T>
struct GeluTanh {
  static constexpr T kTwoRoot = T(1.5957691216057308), kCube = T(0.044715);
  static T value(T x) { return x * sigmoid_of(kTwoRoot * (x + kCube * x * x * x)); }
  static T slope(T x) {
    const T s = sigmoid_of(kTwoRoot * (x + kCube * x * x * x));
    return s + x * s * (T{1} - s) * kTwoRoot * (T{1} + 3 * kCube * x * x);
  }
};
template <typename T>
struct GeluErf {
  static T value(T x) { return x * normal_of(x, bell_of(x)); }
  static T slope(T x) {
    const T bell = bell_of(x);
    return normal_of(x, bell) + x * T(0.3989422804014327) * bell;
  }
};
template <typename T>
struct Relu {  // NaN stays, so that it is found at the loss
  static T value(T x) { return x <= T{0} ? T{0} : x; }
  static T slope(T x) { return x <= T{0} ? T{0} : T{1}; }
};
template <typename T>
struct Silu {
  static T value(T x) { return x * sigmoid_of(x); }
  static T slope(T x) {
    const T s = sigmoid_of(x);
    return s * (T{1} + x * (T{1} - s));
  }
};
template <typename T>
struct Tanh {
  static T value(T x) { return tanh_of(x); }
  static T slope(T x) {
    const T t = tanh_of(x);
    return T{1} - t * t;
  }
};
template <typename T>
struct Sigmoid {
  static T value(T x) { return sigmoid_of(x); }
  static T slope(T x) {
    const T s = sigmoid_of(x);
    return s * (T{1} - s);
  }
};

template <typename F, typename T>
void each(const T* x, T* y, int64_t n) {
  map([](T at) { return F::value(at); }, n, y, x);
}
template <typename F, typename T>
void each_backward(const T* x, const T* dy, T* dx, int64_t n) {
  map([](T at, T grad) { return grad * F::slope(at); }, n, dx, x, dy);
}

template <typename T>
void curve(Curve curve, const T* x, T* y, int64_t n) {
  switch (curve) {
    case Curve::kGeluTanh:
      return each<GeluTanh<T>>(x, y, n);
    case Curve::kGeluErf:
      return each<GeluErf<T>>(x, y, n);
    case Curve::kRelu:
      return each<Relu<T>>(x, y, n);
    case Curve::kSilu:
      return each<Silu<T>>(x, y, n);
    case Curve::kTanh:
      return each<Tanh<T>>(x, y, n);
    case Curve::kSigmoid:
      return each<Sigmoid<T>>(x, y, n);
  }
}
template <typename T>
void curve_backward(Curve curve, const T* x, const T* dy, T* dx, int64_t n) {
  switch (curve) {
    case Curve::kGeluTanh:
      return each_backward<GeluTanh<T>>(x, dy, dx, n);
    case Curve::kGeluErf:
      return each_backward<GeluErf<T>>(x, dy, dx, n);
    case Curve::kRelu:
      return each_backward<Relu<T>>(x, dy, dx, n);
    case Curve::kSilu:
      return each_backward<Silu<T>>(x, dy, dx, n);
    case Curve::kTanh:
      return each_backward<Tanh<T>>(x, dy, dx, n);
    case Curve::kSigmoid:
      return each_backward<Sigmoid<T>>(x, dy, dx, n);
  }
}

template <typename T>
T sum(const T* x, int64_t n) {
  const auto element = [](const auto& v) { return v; };
  return sum_over<T>(n, element, x);
}

template <typename T>
T dot(const T* a, const T* b, int64_t n) {
  const auto product = [](const auto& u, const auto& v) { return u * v; };
  return sum_over<T>(n, product, a, b);
}

template <typename T>
T max(const T* x, int64_t n) {
  T largest = -T(__builtin_inff());
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

template <typename T>
void layer_norm(const T* x, const T* gamma, const T* beta, T epsilon, int64_t n, T* y, T* mean,
                T* rstd) {
  const T m = sum(x, n) / static_cast<T>(n);
  const auto square = [=](const auto& v) { return (v - m) * (v - m); };
  const T squares = sum_over<T, true>(n, square, x);
  const T r = T{1} / static_cast<T>(__builtin_sqrt(squares / static_cast<T>(n) + epsilon));
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - m) * r * gamma[i] + beta[i];
  *mean = m;
  *rstd = r;
}

// dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy gamma.
template <typename T>
void layer_norm_backward(const T* x, const T* dy, const T* gamma, T mean, T rstd, int64_t n, T* dx,
                         T* dgamma, T* dbeta) {
  T total = 0, along = 0;
#pragma omp simd reduction(+ : total, along)
  for (int64_t i = 0; i < n; ++i) {
    const T g = dy[i] * gamma[i];
    total += g;
    along += g * (x[i] - mean) * rstd;
  }
  const T mean_g = total / static_cast<T>(n), mean_along = along / static_cast<T>(n);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T hat = (x[i] - mean) * rstd;
    dx[i] = rstd * (dy[i] * gamma[i] - mean_g - hat * mean_along);
    dgamma[i] += dy[i] * hat;
    dbeta[i] += dy[i];
  }
}

template <typename T>
T exp_shifted(const T* x, T shift, T factor, T* y, int64_t n) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) {
    const T e = factor * exp_of(x[i] - shift);
    y[i] = e;
    total += e;
  }
  return total;
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

template <typename T>
void multiply(const T* x, T* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] *= x[i];
}

template <typename T>
void softmax(const T* x, T* y, int64_t n) {
  const T largest = max(x, n);
  if (largest == -T(__builtin_inff())) {  // nothing to choose from
    for (int64_t i = 0; i < n; ++i) y[i] = 0;
    return;
  }
  const T total = exp_shifted(x, largest, T{1}, y, n);
  scale(T{1} / total, y, n);
}

template <typename T>
void softmax_gradient(const T* p, const T* dp, T delta, T factor, T* ds, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) ds[i] = factor * p[i] * (dp[i] - delta);
}

template <typename T>
void softmax_backward(const T* y, const T* dy, T* dx, int64_t n) {
  softmax_gradient(y, dy, dot(y, dy, n), T{1}, dx, n);
}

template <typename T>
T log_sum_exp(const T* x, int64_t n) {
  const T largest = max(x, n);
  if (largest == -T(__builtin_inff())) return largest;
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) total += exp_of(x[i] - largest);
  return largest + static_cast<T>(__builtin_log(static_cast<double>(total)));
}

constexpr int kLanes = 16;

// Philox4x32-10 for kLanes counters from `first` on: words[4 * lane + w].
inline void philox_lanes(uint64_t seed, uint64_t stream, uint64_t first, uint32_t* words) {
  uint32_t a[kLanes], b[kLanes], c[kLanes], d[kLanes];
#pragma omp simd
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint64_t counter = first + static_cast<uint64_t>(lane);
    a[lane] = static_cast<uint32_t>(counter);
    b[lane] = static_cast<uint32_t>(counter >> 32);
    c[lane] = static_cast<uint32_t>(stream);
    d[lane] = static_cast<uint32_t>(stream >> 32);
  }
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const uint64_t p0 = uint64_t{0xD2511F53} * a[lane], p1 = uint64_t{0xCD9E8D57} * c[lane];
      a[lane] = static_cast<uint32_t>(p1 >> 32) ^ b[lane] ^ k0;
      b[lane] = static_cast<uint32_t>(p1);
      c[lane] = static_cast<uint32_t>(p0 >> 32) ^ d[lane] ^ k1;
      d[lane] = static_cast<uint32_t>(p0);
    }
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
#pragma omp simd
  for (int lane = 0; lane < kLanes; ++lane) {
    words[4 * lane] = a[lane];
    words[4 * lane + 1] = b[lane];
    words[4 * lane + 2] = c[lane];
    words[4 * lane + 3] = d[lane];
  }
}

template <typename T>
void draw_kept(uint64_t seed, uint64_t stream, uint64_t first, float rate, T kept, T* keep,
               int64_t n) {
  uint32_t words[4 * kLanes];
  for (int64_t done = 0; done < n;) {
    const uint64_t index = first + static_cast<uint64_t>(done);
    const int64_t skipped = static_cast<int64_t>(index % 4);
    philox_lanes(seed, stream, index / 4, words);
    const int64_t rest = n - done, room = 4 * kLanes - skipped;
    const int64_t count = rest < room ? rest : room;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const float uniform =
          static_cast<float>(static_cast<int>(words[skipped + i] >> 8)) * 0x1p-24F;
      keep[done + i] = uniform >= rate ? kept : T{0};
    }
    done += count;
  }
}

template <typename T>
constexpr RowKernels<T> table() {
  return {curve<T>,       curve_backward<T>,
          layer_norm<T>,  layer_norm_backward<T>,
          softmax<T>,     softmax_backward<T>,
          log_sum_exp<T>, exp_shifted<T>,
          sum<T>,         dot<T>,
          max<T>,         scale<T>,
          add<T>,         multiply<T>,
          draw_kept<T>,   softmax_gradient<T>};
}
