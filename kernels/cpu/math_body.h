// Functions of one number for the loops of rows_body.h and vectors_body.h, in float and double.
// Rules as there: included inside the namespace of a level, calls nothing inline of another header.
//
// Numerical policy: float exp is a polynomial of degree 7 on [-ln2/2, ln2/2] (relative error below
// 2e-7); float log, log1p, expm1, erfc and pow are those of glibc's vector library (at most 4 units
// in the last place); double uses the C library.

inline float exp_of(float x) {
  constexpr float kLow = -87.3F, kHigh = 88.72F;
  float c = x < kLow ? kLow : x;
  c = c > kHigh ? kHigh : c;
  const float n = (c * 1.44269504F + 12582912.0F) - 12582912.0F;  // to the nearest integer
  float r = c - n * 0.693359375F;
  r = r + n * 2.12194440e-4F;
  float p = 1.0F / 5040 * r + 1.0F / 720;
  p = p * r + 1.0F / 120;
  p = p * r + 1.0F / 24;
  p = p * r + 1.0F / 6;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const int whole = static_cast<int>(n),
            half = whole / 2;  // 2^whole may not be a float, its root is
  const float result = p * __builtin_bit_cast(float, (half + 127) << 23) *
                       __builtin_bit_cast(float, (whole - half + 127) << 23);
  const float low_cut = x < kLow ? 0.0F : result;
  return x > kHigh ? __builtin_inff() : low_cut;
}
inline double exp_of(double x) { return __builtin_exp(x); }

inline float tanh_of(float x) {
  const float a = __builtin_fabsf(x), z = x * x;
  float p = -5.70498872745e-3F * z + 2.06390887954e-2F;
  p = p * z - 5.37397155531e-2F;
  p = p * z + 1.33314422036e-1F;
  p = p * z - 3.33332819422e-1F;
  const float near = p * z * x + x;
  const float far = __builtin_copysignf(1.0F - 2.0F / (exp_of(2 * a) + 1.0F), x);
  return a < 0.625F ? near : far;
}
inline double tanh_of(double x) { return __builtin_tanh(x); }
inline float erfc_of(float x) { return ::erfcf(x); }
inline double erfc_of(double x) { return __builtin_erfc(x); }

template <typename T>
inline T sigmoid_of(T x) {
  return T{1} / (T{1} + exp_of(-x));
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
inline float abs_of(float x) { return __builtin_fabsf(x); }
inline double abs_of(double x) { return __builtin_fabs(x); }
