// GELU of bf16 and its slope, for a whole vector of AVX-512; included by rows_body.h, rules as
// there.
//
// Of n = -|x|, GELU is n Q(n) there and that plus |x| at |x|, where Q is the normal distribution,
// or what GELU by tanh has for it; the slope is S(n) = Q(n) + n Q'(n) and 1 - S(n). S has one zero,
// which is taken out of it, so that it is as exact beside that as elsewhere.
//
// Numerical policy: Q and S(n) / (n - zero) are one of 15 cubics each, the one whose number i is
// nearest to n^2 / 2: pieces of n that become shorter as both fall faster. What they err by moves a
// result by less than 0.3 units of bf16's last place, 0.9 where it is below 2^-16. Below -5.38 both
// are 0: what is missing there is less than 2^-22 (slope: 2^-20), which is what fp32 loses of
// 1 + erf(x).

// Normal distribution at -a, and its derivative.
struct ByErf {
  static constexpr double below(double a) { return 0.5 * __builtin_erfc(a * 0.7071067811865476); }
  static constexpr double rise(double a) {
    return 0.3989422804014327 * __builtin_exp(-0.5 * a * a);
  }
};
// The same of GELU by tanh (rows_body.h).
struct ByTanh {
  static constexpr double kLine = 1.5957691216057308, kThird = 0.044715 * kLine;
  static constexpr double below(double a) {
    return 1 / (1 + __builtin_exp(a * (kLine + kThird * a * a)));
  }
  static constexpr double rise(double a) {
    return below(a) * (1 - below(a)) * (kLine + 3 * kThird * a * a);
  }
};
template <typename By>
constexpr double gelu_slope_below(double a) {
  return By::below(a) - a * By::rise(a);
}
template <typename By>
constexpr double slope_zero() {
  double low = -1, high = -0.5;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (gelu_slope_below<By>(-middle) > 0 ? high : low) = middle;
  }
  return low;
}

// of[k][i]: what piece i has before n^k. Each goes through four points, those of Chebyshev.
struct Cubics {
  alignas(64) float of[4][16] = {};
  template <typename F>
  explicit constexpr Cubics(const F& f) {
    for (int i = 0; i < 15; ++i) {
      const double near = i == 0 ? 0 : __builtin_sqrt(2 * i - 1), far = __builtin_sqrt(2 * i + 1);
      const double middle = -(near + far) / 2, half = (far - near) / 2;
      constexpr double kPoints[4] = {-0.9238795325112867, -0.3826834323650898, 0.3826834323650898,
                                     0.9238795325112867};
      double at[4] = {}, difference[4] = {};
      for (int k = 0; k < 4; ++k) {
        at[k] = middle + half * kPoints[k];
        difference[k] = f(at[k]);
      }
      for (int order = 1; order < 4; ++order) {
        for (int k = 3; k >= order; --k) {
          difference[k] = (difference[k] - difference[k - 1]) / (at[k] - at[k - order]);
        }
      }
      double powers[4] = {difference[3]};  // Newton's form, multiplied out
      for (int k = 2; k >= 0; --k) {
        for (int power = 3; power > 0; --power) {
          powers[power] = powers[power - 1] - at[k] * powers[power];
        }
        powers[0] = difference[k] - at[k] * powers[0];
      }
      for (int power = 0; power < 4; ++power) of[power][i] = static_cast<float>(powers[power]);
    }
  }
};
template <typename By>
constexpr Cubics kGeluBelow{[](double n) { return By::below(-n); }};
template <typename By>
constexpr Cubics kGeluSlopeBelow{
    [](double n) { return gelu_slope_below<By>(-n) / (n - slope_zero<By>()); }};

constexpr float kBehindPieces = 5.5F;  // in piece 15, which is 0
inline Floats cubic_of(const Cubics& cubics, const Floats& n) {
  constexpr float kTwos = 0x1.8p24F;  // adding it leaves half of n^2 in the last bits, rounded
  const Ints i = bits_of(_mm512_fmadd_ps(n, n, _mm512_set1_ps(kTwos)));
  Floats p = pick(cubics.of[3], i);
  for (int k = 2; k >= 0; --k) p = _mm512_fmadd_ps(p, n, pick(cubics.of[k], i));
  return p;
}

template <typename By>
struct GeluOfHalves {
  static constexpr bool kByLanes = true;
  static Floats value(const Floats& x) {
    constexpr int kNegativeOfLesser = 0b1110;
    const Floats n = _mm512_range_ps(x, _mm512_set1_ps(kBehindPieces), kNegativeOfLesser);
    const Floats positive = _mm512_max_ps(_mm512_set1_ps(-0.0F), x);  // of NaN or 0 the second
    return _mm512_fmadd_ps(n, cubic_of(kGeluBelow<By>, n), positive);
  }
  static Floats slope(const Floats& x) {
    constexpr int kSign = 1 << 31;
    const Floats n = _mm512_max_ps(_mm512_set1_ps(-kBehindPieces), floats_of(bits_of(x) | kSign));
    constexpr float kZero = static_cast<float>(slope_zero<By>());
    const Floats below = (n - kZero) * cubic_of(kGeluSlopeBelow<By>, n);
    const __mmask16 positive =
        _mm512_testn_epi32_mask(reinterpret_cast<__m512i>(x), _mm512_set1_epi32(kSign));
    return _mm512_mask_sub_ps(below, positive, _mm512_set1_ps(1), below);
  }
};
template <>
struct GeluTanh<bfloat16> : GeluOfHalves<ByTanh> {};
template <>
struct GeluErf<bfloat16> : GeluOfHalves<ByErf> {};
