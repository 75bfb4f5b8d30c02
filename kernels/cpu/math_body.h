// Functions of one number for the loops of rows_body.h and vectors_body.h, in float and double.
// Rules as there: included inside the namespace of a level, calls nothing inline of another header.
//
// Numerical policy: float exp is a polynomial of degree 5 on [-ln2/2, ln2/2], the one of that
// degree with the least relative error, 1.1e-7 (with roundings below 2.5e-7); float's normal
// distribution has a relative error below 6e-7 where its argument is above -4, 5e-6 down to where
// it is no normal number; float log, log1p, expm1 and pow are those of glibc's vector library (at
// most 4 units in the last place); double uses the C library. With AVX-512, math_avx512_body.h.

constexpr float kExpLow = -87.3F, kExpHigh = 88.72F;

// e^(kFactor x) as the result times 2^n, for -87.3 <= kFactor x <= 89; of NaN anything. exponent is
// n + kBias where a float has its own, the result is near 1. kFactor is a power of two or minus
// one, which the constants take on: no rounding changes.
template <float kFactor, int kBias>
[[gnu::always_inline]] inline float parts_of_exp(float x, unsigned& exponent) {
  constexpr float kSecond = kFactor * kFactor, kFourth = kSecond * kSecond;
  constexpr float kShift = 12582912.0F + kBias;  // leaves the nearest integer in the last bits
  const float shifted = x * (kFactor * 1.44269504F) + kShift;
  const float n = shifted - kShift;
  float r = x - n * (0.693359375F / kFactor);
  r = r + n * (2.12194440e-4F / kFactor);
  float p = kFactor * kFourth * 0.008312520571F * r + kFourth * 0.04189015552F;
  p = p * r + kFactor * kSecond * 0.16667114198F;
  p = p * r + kSecond * 0.4999923110F;
  p = p * r + kFactor;
  p = p * r + 1.0F;
  exponent = __builtin_bit_cast(unsigned, shifted) << 23;
  return p;
}
// The whole, for kFactor x in [kExpLow, kExpHigh]: between these it and p are normal numbers.
template <float kFactor = 1.0F>
inline float near_exp_of(float x) {
  unsigned exponent;
  const float p = parts_of_exp<kFactor, 0>(x, exponent);
  return __builtin_bit_cast(float, __builtin_bit_cast(unsigned, p) + exponent);
}
// The same, 0 below kExpLow.
inline float bounded_exp_of(float x) { return x < kExpLow ? 0.0F : near_exp_of(x); }
inline float exp_of(float x) {
  return x <= kExpHigh ? bounded_exp_of(x) : x * __builtin_inff();  // NaN stays NaN
}
inline double exp_of(double x) { return __builtin_exp(x); }

// 1 + e^u for -87.3 <= u <= 89; infinity from 88.72 on, or a little below.
inline float one_and_exp_of(float u) {
  unsigned exponent;
  const float p = parts_of_exp<1.0F, 127>(u, exponent);
  return 1.0F + p * __builtin_bit_cast(float, exponent);
}
inline double one_and_exp_of(double u) { return 1 + __builtin_exp(u); }

inline float abs_of(float x) { return __builtin_fabsf(x); }
inline double abs_of(double x) { return __builtin_fabs(x); }

// x where it is above 0, else 0; of NaN it or 0. Floats above 0 are integers above 0.
inline float positive_of(float x) {
  const int word = __builtin_bit_cast(int, x);
  return __builtin_bit_cast(float, word > 0 ? word : 0);
}
inline double positive_of(double x) { return x > 0 ? x : 0; }

inline float tanh_of(float x) {
  const float a = __builtin_fabsf(x), z = x * x;
  float p = -5.70498872745e-3F * z + 2.06390887954e-2F;
  p = p * z - 5.37397155531e-2F;
  p = p * z + 1.33314422036e-1F;
  p = p * z - 3.33332819422e-1F;
  const float near = p * z * x + x;
  const float twice = 2 * a, cut = twice > 89.0F ? 89.0F : twice;  // NaN stays NaN
  const float far = __builtin_copysignf(1.0F - 2.0F / one_and_exp_of(cut), x);
  return a < 0.625F ? near : far;
}
inline double tanh_of(double x) { return __builtin_tanh(x); }

// e^(-x^2 / 2); of NaN anything.
inline float bell_of(float x) {
  const float square = x * x;
  return square > -2.0F * kExpLow ? 0.0F : near_exp_of<-0.5F>(square);
}
inline double bell_of(double x) { return __builtin_exp(-0.5 * x * x); }
// The standard normal distribution at -|x|, given bell_of(x). It is that times a
// smooth function of t = 1 / (1 + 0.3 |x|) (the form of Abramowitz and Stegun 1964, 26.2.17), here
// the polynomial of degree 8 with the least relative error, 5.7e-8, for |x| < 13.2.
inline float normal_below(float x, float bell) {
  const float t = 1.0F / (1.0F + 0.3F * __builtin_fabsf(x));
  float p = 0.038298930008855814F * t - 0.16877976807098372F;
  p = p * t + 0.22786059483819124F;
  p = p * t - 0.07559028891049357F;
  p = p * t + 0.14190128253720455F;
  p = p * t + 0.09495438776375571F;
  p = p * t + 0.12185083044399686F;
  p = p * t + 0.11949746726382943F;
  p = p * t + 6.592610777539365e-6F;
  return p * bell;
}
inline double normal_below(double x, double) {
  return 0.5 * __builtin_erfc(__builtin_fabs(x) * 0.7071067811865476);
}
// The same at x.
template <typename T>
inline T normal_of(T x, T bell) {
  const T below = normal_below(x, bell);
  return x < T{0} ? below : T{1} - below;
}

// |x| to 64, from where on what GELU has for the normal distribution is 0 below -|x|: of infinity a
// product with that would be NaN. Of NaN NaN.
constexpr float kFar = 64;
template <typename T>
inline T near_abs_of(T x) {
  const T far = abs_of(x);
  return far > T(kFar) ? T(kFar) : far;
}
// x, but no less than -64; of NaN NaN.
template <typename T>
inline T near_below_of(T x) {
  return x < T(-kFar) ? T(-kFar) : x;
}

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
inline float gate_of(float u) { return 1.0F / one_and_exp_of(cut_of<-87.0F, 89.0F>(u)); }
inline double gate_of(double u) { return 1 / one_and_exp_of(u); }
template <typename T>
inline T sigmoid_of(T x) {
  const T gate = gate_of(-x);
  return x == x ? gate : x;  // NaN stays NaN
}

inline float log_of(float x) { return ::logf(x); }
inline double log_of(double x) { return __builtin_log(x); }
inline float log1p_of(float x) { return ::log1pf(x); }
inline double log1p_of(double x) { return __builtin_log1p(x); }
inline float expm1_of(float x) { return ::expm1f(x); }
inline double expm1_of(double x) { return __builtin_expm1(x); }
inline float pow_of(float x, float y) { return ::powf(x, y); }
inline double pow_of(double x, double y) { return __builtin_pow(x, y); }
inline float sqrt_of(float x) { return __builtin_sqrtf(x); }
inline double sqrt_of(double x) { return __builtin_sqrt(x); }

// Whether functions of one number take a whole vector, too.
#ifdef __AVX512F__
#include "kernels/cpu/math_avx512_body.h"
template <typename T>
constexpr bool kVectorMath = sizeof(T) == sizeof(float);
#else
template <typename T>
constexpr bool kVectorMath = false;
#endif

// The sigmoid of x, for a result of S.
template <typename S, typename V>
inline V sigmoid_for(const V& x) {
#ifdef __AVX512F__
  if constexpr (sizeof(S) == sizeof(bfloat16)) return sigmoid_for_halves(x);
#endif
  return gate_of(-x);
}
