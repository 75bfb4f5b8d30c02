// Functions of one number for the loops of rows_body.h and vectors_body.h, in float and double.
// Rules as there: included inside the namespace of a level, calls nothing inline of another header.
//
// Numerical policy: float exp is a polynomial of degree 5 on [-ln2/2, ln2/2], the one of that
// degree with the least relative error, 1.1e-7 (with roundings below 2.5e-7); float's normal
// distribution has a relative error below 6e-7 where its argument is above -4, 5e-6 down to where
// it is no normal number; float log, expm1 and pow are those of glibc's vector library (at most 4
// units in the last place); double uses the C library. With AVX-512, math_avx512_body.h;
// with AVX2, functions of a pack of vectors (map_body.h), math_avx2_body.h.

constexpr float kExpLow = -87.3F, kExpHigh = 88.72F;

// p times 2^n, n in the last bits of shifted: added to p's exponent, or the power alone, where they
// hold its exponent with the bias.
inline float times_power(float p, float shifted) {
  return __builtin_bit_cast(
      float, __builtin_bit_cast(unsigned, p) + (__builtin_bit_cast(unsigned, shifted) << 23));
}
inline float power_in(float shifted) {
  return __builtin_bit_cast(float, __builtin_bit_cast(unsigned, shifted) << 23);
}
template <typename T>
inline T chosen(bool first, T x, T y) {
  return first ? x : y;
}

// x. Of a pack its vectors, which the compiler then computes in turns (packs_avx2_body.h).
template <typename V>
inline const V& in_turns(const V& x) {
  return x;
}
// The polynomial of x with these before its powers, the highest one first.
template <typename V, typename... Others>
[[gnu::always_inline]] inline V polynomial(const V& x, float first, float second,
                                           Others... others) {
  V p = in_turns(first * x + second);
  ((p = in_turns(p * x + others)), ...);
  return p;
}

// e^(kFactor x) as the result times 2^n, for -87.3 <= kFactor x <= 89; of NaN anything. shifted has
// n + kBias in its last bits, the result is near 1. kFactor is a power of two or minus one, which
// the constants take on: no rounding changes.
template <float kFactor, int kBias, typename V>
[[gnu::always_inline]] inline V parts_of_exp(const V& x, V& shifted) {
  constexpr float kSecond = kFactor * kFactor, kFourth = kSecond * kSecond;
  constexpr float kShift = 12582912.0F + kBias;  // leaves the nearest integer in the last bits
  shifted = in_turns(x * (kFactor * 1.44269504F) + kShift);
  const V n = in_turns(shifted - kShift);
  const V above = in_turns(x - n * (0.693359375F / kFactor));
  const V r = in_turns(above + n * (2.12194440e-4F / kFactor));
  return polynomial(r, kFactor * kFourth * 0.008312520571F, kFourth * 0.04189015552F,
                    kFactor * kSecond * 0.16667114198F, kSecond * 0.4999923110F, kFactor, 1.0F);
}
// The whole, for kFactor x in [kExpLow, kExpHigh]: between these it and p are normal numbers.
template <float kFactor = 1.0F, typename V>
inline V near_exp_of(const V& x) {
  V shifted;
  const V p = parts_of_exp<kFactor, 0>(x, shifted);
  return times_power(p, shifted);
}
template <typename V>
inline V exp_of(const V& x) {
  const V bounded = chosen(x < V(kExpLow), V(0.0F), near_exp_of(x));
  return chosen(x <= V(kExpHigh), bounded, x * __builtin_inff());  // NaN stays NaN
}
inline double exp_of(double x) { return __builtin_exp(x); }

// 1 + e^u for -87.3 <= u <= 89; infinity from 88.72 on, or a little below.
template <typename V>
inline V one_and_exp_of(const V& u) {
  V shifted;
  const V p = parts_of_exp<1.0F, 127>(u, shifted);
  return 1.0F + p * power_in(shifted);
}
inline double one_and_exp_of(double u) { return 1 + __builtin_exp(u); }

inline float abs_of(float x) { return __builtin_fabsf(x); }
inline double abs_of(double x) { return __builtin_fabs(x); }

// e^(-x^2 / 2); of NaN anything.
template <typename V>
inline V bell_of(const V& x) {
  const V square = x * x;
  return chosen(square > V(-2.0F * kExpLow), V(0.0F), near_exp_of<-0.5F>(square));
}
inline double bell_of(double x) { return __builtin_exp(-0.5 * x * x); }
// The standard normal distribution at -a, a >= 0, as e^(-a^2 / 2) times a smooth function of
// t = 1 / (1 + 0.3 a) (the form of Abramowitz and Stegun 1964, 26.2.17), here the polynomial of
// degree 8 with the least relative error, 5.7e-8, for a < 13.2.
template <typename V>
struct Normal {
  V ratio, bell;
  explicit Normal(const V& a) {
    const V t = in_turns(1.0F / (1.0F + 0.3F * a));  // first, as it takes long
    bell = bell_of(a);
    ratio = polynomial(t, 0.038298930008855814F, -0.16877976807098372F, 0.22786059483819124F,
                       -0.07559028891049357F, 0.14190128253720455F, 0.09495438776375571F,
                       0.12185083044399686F, 0.11949746726382943F, 6.592610777539365e-6F);
  }
  V value() const { return ratio * bell; }
  V less_bells(const V& count) const { return (ratio - count) * bell; }
};
template <>
struct Normal<double> {
  double below, bell;
  explicit Normal(double a)
      : below(0.5 * __builtin_erfc(a * 0.7071067811865476)), bell(bell_of(a)) {}
  double value() const { return below; }
  double less_bells(double count) const { return below - count * bell; }
};

// x, but no more or no less than a bound; of NaN NaN.
template <typename T>
inline T at_most(float bound, T x) {
  return x > T(bound) ? T(bound) : x;
}
template <typename T>
inline T at_least(float bound, T x) {
  return x < T(bound) ? T(bound) : x;
}
// From where on what GELU has for the normal distribution below is 0: of infinity a product with
// that would be NaN.
constexpr float kFar = 64;

// u cut to [kLow, kHigh], kLow < 0 < kHigh; of NaN one of them. As integers, which leave the units
// of floats alone: as a signed one a negative float is below kHigh, as an unsigned one a positive
// float is below kLow.
template <float kLow, float kHigh>
inline float cut_of(float u) {
  constexpr int kAbove = __builtin_bit_cast(int, kHigh);
  constexpr unsigned kBelow = __builtin_bit_cast(unsigned, kLow);
  const int word = __builtin_bit_cast(int, u);
  const unsigned least = static_cast<unsigned>(word < kAbove ? word : kAbove);
  return __builtin_bit_cast(float, least < kBelow ? least : kBelow);
}
// 1 / (1 + e^u), which is the sigmoid of -u; 0 where one_and_exp_of is infinite, of NaN anything.
template <typename V>
inline V gate_of(const V& u) {
  return 1.0F / one_and_exp_of(cut_of<-87.0F, 89.0F>(u));
}
inline double gate_of(double u) { return 1 / one_and_exp_of(u); }

inline float log_of(float x) { return ::logf(x); }
inline double log_of(double x) { return __builtin_log(x); }
inline float expm1_of(float x) { return ::expm1f(x); }
inline double expm1_of(double x) { return __builtin_expm1(x); }
inline float pow_of(float x, float y) { return ::powf(x, y); }
inline double pow_of(double x, double y) { return __builtin_pow(x, y); }
inline float sqrt_of(float x) { return __builtin_sqrtf(x); }
inline double sqrt_of(double x) { return __builtin_sqrt(x); }
inline float with_sign_of(float x, float sign) { return __builtin_copysignf(x, sign); }

// Whether functions of one number take a whole vector, too, or a pack of vectors.
#ifdef __AVX512F__
#include "kernels/cpu/math_avx512_body.h"
template <typename T>
constexpr bool kVectorMath = sizeof(T) == sizeof(float);
template <typename T>
constexpr bool kPackMath = false;
#elif defined(WEFT_PACKS)
#include "kernels/cpu/math_avx2_body.h"
template <typename T>
constexpr bool kVectorMath = false;
template <typename T>
constexpr bool kPackMath = sizeof(T) == sizeof(float);
#else
template <typename T>
constexpr bool kVectorMath = false;
template <typename T>
constexpr bool kPackMath = false;
#endif

template <typename V>
inline V sigmoid_of(const V& x) {
  return chosen(x == x, gate_of(-x), x);  // NaN stays NaN
}

// x near 0, else 1 - 2 / (1 + e^2x), which is 1 from 20 on.
template <typename V>
inline V tanh_of(const V& x) {
  const V a = abs_of(x), z = x * x;
  const V p = polynomial(z, -5.70498872745e-3F, 2.06390887954e-2F, -5.37397155531e-2F,
                         1.33314422036e-1F, -3.33332819422e-1F);
  const V near = p * z * x + x;
  const V far = 1.0F - 2.0F / one_and_exp_of(at_most(40.0F, a + a));  // NaN stays NaN
  return chosen(a < 0.625F, near, with_sign_of(far, x));
}
inline double tanh_of(double x) { return __builtin_tanh(x); }

// log(1 + x) for 0 <= x <= 1, without the rounding of 1 + x: ln 2 or 0 + r + r^2 times the
// polynomial of math_avx2_body.h, (1 + r) or 2 (1 + r) = 1 + x.
template <typename V>
inline V log1p_of(const V& x) {
  const auto low = x < 0.333333343F;
  const V r = chosen(low, x, 0.5F * x - 0.5F), base = chosen(low, x, r + 0.693147182F);
  const V p = polynomial(r, -0x1.3e737cp-3F, 0x1.5a9aa2p-3F, -0x1.4f9934p-3F, 0x1.961348p-3F,
                         -0x1.00187cp-2F, 0x1.555d7cp-2F, -0x1.ffffc8p-2F);
  return p * (r * r) + base;
}
inline double log1p_of(double x) { return __builtin_log1p(x); }

// The sigmoid of x, for a result of S.
template <typename S, typename V>
inline V sigmoid_for(const V& x) {
#ifdef __AVX512F__
  if constexpr (sizeof(S) == sizeof(bfloat16)) return sigmoid_for_halves(x);
#endif
  return gate_of(-x);
}
