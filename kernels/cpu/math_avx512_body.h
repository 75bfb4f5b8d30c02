// Functions of math_body.h for a whole vector of AVX-512, in which a register is a table of 16
// numbers and two are one of 32. Included by math_body.h, rules as there.
//
// Numerical policy: 2^y is 2^(i/32), i / 32 the nearest to y, times the quadratic polynomial of the
// rest with the least relative error, 5.4e-8 (Tang 1989, "Table-driven implementation of the
// exponential function"); bounds are those of math_body.h. Polynomials were fitted in double on
// Chebyshev points by weighted least squares, weights raised where the error is (Lawson 1961).

typedef Lanes<float> Floats;
typedef LanesOf<int>::Type Ints;
typedef LanesOf<unsigned>::Type Unsigned;

// Casts of values: a vector's address is a multiple of its elements' size only.
inline Ints bits_of(const Floats& x) { return reinterpret_cast<Ints>(x); }
inline Floats floats_of(const Ints& bits) { return reinterpret_cast<Floats>(bits); }
// Wraps, in lanes that nobody reads.
inline Ints sum_of_bits(const Ints& x, const Ints& y) {
  return reinterpret_cast<Ints>(reinterpret_cast<Unsigned>(x) + reinterpret_cast<Unsigned>(y));
}

inline Floats abs_of(const Floats& x) { return floats_of(bits_of(x) & 0x7FFFFFFF); }
inline Floats with_sign_of(const Floats& x, const Floats& sign) {
  return floats_of((bits_of(x) & 0x7FFFFFFF) | (bits_of(sign) & ~0x7FFFFFFF));
}
inline Floats sqrt_of(const Floats& x) { return _mm512_sqrt_ps(x); }
// One of them may be one number for all lanes.
template <typename X, typename Y>
inline Floats chosen(const Ints& mask, const X& x, const Y& y) {
  return mask ? x : y;
}

// table[i mod 16], table[i mod 32]
inline Floats pick(const float* table, const Ints& i) {
  return _mm512_permutexvar_ps(reinterpret_cast<__m512i>(i), _mm512_load_ps(table));
}
inline Floats pick_of_32(const float* table, const Ints& i) {
  return _mm512_permutex2var_ps(_mm512_load_ps(table), reinterpret_cast<__m512i>(i),
                                _mm512_load_ps(table + 16));
}

// The bits of 2^(i / kCount), less i 2^23 / kCount.
template <int kCount>
struct Roots {
  alignas(64) float of[kCount] = {};
  constexpr Roots() {
    for (int i = 0; i < kCount; ++i) {
      const float root = static_cast<float>(__builtin_exp2(static_cast<double>(i) / kCount));
      of[i] = __builtin_bit_cast(float, __builtin_bit_cast(int, root) - i * ((1 << 23) / kCount));
    }
  }
};
constexpr Roots<32> kRoots;
constexpr Roots<16> kRootsOf16;

// 2^y as scale (1 + rest): adding kThirtySeconds to y leaves 32 y in the sum's last bits, rounded.
constexpr float kThirtySeconds = 0x1.8p18F;
struct Power {
  Floats scale, rest;
  Floats value() const { return _mm512_fmadd_ps(scale, rest, scale); }
};
// shifted: y + kThirtySeconds; below: y less what shifted rounds it to. -125.9 < y < 127.9.
inline Power power_of(const Floats& shifted, const Floats& below) {
  const Ints i = bits_of(shifted);
  const Floats scale = floats_of(sum_of_bits(bits_of(pick_of_32(kRoots.of, i)), i << 18));
  return {scale, below * (0.693157334F + 0.240226763F * below)};
}
inline Power power_of(const Floats& y) {
  const Floats shifted = y + kThirtySeconds;
  return power_of(shifted, y - (shifted - kThirtySeconds));
}
// Fused by name: a compiler contracts a product of two sums here and not there.
constexpr float kDoublings = 1.44269502F, kRestOfThem = 1.92596299e-8F;  // log2(e)
inline Floats shifted_exponent_of(const Floats& x) {
  return _mm512_fmadd_ps(x, _mm512_set1_ps(kDoublings), _mm512_set1_ps(kThirtySeconds));
}
inline Power near_exp_of(const Floats& x, const Floats& shifted) {
  const Floats below = _mm512_fmsub_ps(x, _mm512_set1_ps(kDoublings), shifted - kThirtySeconds);
  return power_of(shifted, _mm512_fmadd_ps(x, _mm512_set1_ps(kRestOfThem), below));
}
inline Power near_exp_of(const Floats& x) { return near_exp_of(x, shifted_exponent_of(x)); }
// e^x given its power, 0 below kExpLow.
inline Floats exp_by_power(const Floats& x, const Power& p) {
  const __mmask16 within = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpLow), _CMP_NLT_UQ);
  return _mm512_maskz_mul_ps(within, p.scale, 1.0F + p.rest);
}
constexpr float kInfinite = 88.725F;  // 128 ln 2 and a little, whose scale is infinity
// exp_of for rows' sums, in which it is a little faster, but infinity from 88.713 on.
inline Floats exp_below_of(const Floats& x) {
  return exp_by_power(x, near_exp_of(_mm512_min_ps(_mm512_set1_ps(kInfinite), x)));
}
// From 88.711 on 1.5e-6 off, as the last root that is finite stands for the next, too.
inline Floats exp_of(const Floats& x) {
  constexpr float kLast = kThirtySeconds + 4095.0F / 32;
  const Floats shifted = _mm512_min_ps(_mm512_set1_ps(kLast), shifted_exponent_of(x));
  return exp_by_power(x, near_exp_of(x, shifted));
}

template <float kLow, float kHigh>
inline Floats cut_of(const Floats& u) {
  constexpr int kAbove = __builtin_bit_cast(int, kHigh), kBelow = __builtin_bit_cast(int, kLow);
  const __m512i least = _mm512_min_epi32(reinterpret_cast<__m512i>(u), _mm512_set1_epi32(kAbove));
  return reinterpret_cast<Floats>(_mm512_min_epu32(least, _mm512_set1_epi32(kBelow)));
}
// The scale may be infinity.
inline Floats one_and(const Power& power) { return 1.0F + power.scale * (1.0F + power.rest); }
inline Floats one_and_exp_of(const Floats& u) { return one_and(near_exp_of(u)); }
inline Floats gate_of(const Floats& u) {
  return 1.0F / one_and_exp_of(cut_of<-87.0F, kInfinite>(u));
}
// The sigmoid of x for results of bf16: errs by less than 2^-12.3, and not where it is 1. 0 below
// -128 ln 2, where 2^(i / 16) becomes infinite; of NaN anything.
inline Floats sigmoid_for_halves(const Floats& x) {
  constexpr float kLow = -88.72284F, kHigh = 86, kLog = -1.44269504F, kSixteenths = 0x1.8p19F;
  const Floats cut = _mm512_min_ps(_mm512_set1_ps(kHigh), _mm512_max_ps(_mm512_set1_ps(kLow), x));
  const Floats shifted = cut * kLog + kSixteenths, rest = cut * kLog - (shifted - kSixteenths);
  const Ints i = bits_of(shifted);
  const Floats scale = floats_of(sum_of_bits(bits_of(pick(kRootsOf16.of, i)), i << 19));
  return _mm512_rcp14_ps(1.0F + scale * (1.000117F + 0.69323F * rest));
}

// log(x) as e ln 2 + L + log(1 + r), x = m 2^e, 1 <= m < 2, 1 + r = m / c: c near m is one of 16,
// by the first four bits after m's first, and such that L = log(c) and e ln 2 + L have little to
// round; 1 and 2 are among them, so that near 1 only r is left. |r| < 1/16. Less than 1.5 units in
// the last place off; -infinity of 0, NaN below.
struct Logarithms {
  alignas(64) float of[16] = {};
  explicit constexpr Logarithms(const float (&reciprocals)[16]) {
    for (int i = 0; i < 16; ++i) {
      of[i] = static_cast<float>(-__builtin_log(static_cast<double>(reciprocals[i])));
    }
  }
};
alignas(64) constexpr float kReciprocals[16] = {
    1.0F,         0.914179265F, 0.864982545F, 0.820661068F, 0.780449152F, 0.744031608F,
    0.711086273F, 0.681020498F, 0.652947783F, 0.627575815F, 0.603858888F, 0.581756234F,
    0.561426818F, 0.542515874F, 0.524453163F, 0.5F};
constexpr Logarithms kLogarithms(kReciprocals);
inline Floats log_of(const Floats& x) {
  const Floats exponent = _mm512_getexp_ps(x);
  const Floats m = _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_nan);
  const Ints i = bits_of(m) >> 19;
  const Floats r = _mm512_fmsub_ps(m, pick(kReciprocals, i), _mm512_set1_ps(1));
  Floats p = _mm512_fmadd_ps(_mm512_set1_ps(0.188724431F), r, _mm512_set1_ps(-0.250081617F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.333344617F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(-0.5F));
  const Floats rest = _mm512_fmadd_ps(p, r * r, r);
  return _mm512_fmadd_ps(exponent, _mm512_set1_ps(kLogarithms.of[15]), pick(kLogarithms.of, i)) +
         rest;
}

// Of NaN the second of what is compared.
inline Floats at_most(float bound, const Floats& x) {
  return _mm512_min_ps(_mm512_set1_ps(bound), x);
}
inline Floats at_least(float bound, const Floats& x) {
  return _mm512_max_ps(_mm512_set1_ps(bound), x);
}
