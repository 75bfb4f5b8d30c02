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
  Floats value() const { return scale + scale * rest; }
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
inline Power near_exp_of(const Floats& x) {
  constexpr float kLog = 1.44269502F, kRest = 1.92596299e-8F;  // log2(e)
  const Floats shifted = x * kLog + kThirtySeconds;
  return power_of(shifted, x * kRest + (x * kLog - (shifted - kThirtySeconds)));
}
// exp_of, but infinity from 88.713 on.
inline Floats exp_below_of(const Floats& x) {
  constexpr float kInfinite = 88.725F;  // 128 ln 2 and a little
  const Power p = near_exp_of(_mm512_min_ps(_mm512_set1_ps(kInfinite), x));
  const __mmask16 within = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpLow), _CMP_NLT_UQ);
  return _mm512_maskz_mul_ps(within, p.scale, 1.0F + p.rest);
}

// u cut to [kLow, kHigh], kLow < 0 < kHigh, as gate_of does it.
template <int kLow, int kHigh>
inline Floats cut_of(const Floats& u) {
  constexpr int kAbove = __builtin_bit_cast(int, static_cast<float>(kHigh));
  constexpr int kBelow = __builtin_bit_cast(int, static_cast<float>(kLow));
  const __m512i least = _mm512_min_epi32(reinterpret_cast<__m512i>(u), _mm512_set1_epi32(kAbove));
  return reinterpret_cast<Floats>(_mm512_min_epu32(least, _mm512_set1_epi32(kBelow)));
}
inline Floats gate_of(const Floats& u) {
  return 1.0F / (1.0F + near_exp_of(cut_of<-87, 88>(u)).value());
}
// 1 / (1 + 2^u)
inline Floats gate_of_power(const Floats& u) {
  return 1.0F / (1.0F + power_of(cut_of<-125, 127>(u)).value());
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

// What normal_below is beside e^(-x^2 / 2), the latter as 2^(kHalfLog x^2): a polynomial of degree
// 5 of the distance to the nearest of 16 points, whose 1 + |x| has two bits after the first. The
// least relative error, 5.4e-8.
constexpr float kHalfLog = -0.721347511F;
alignas(64) constexpr float kTails[6][16] = {
    {0.261578292F, 0.20578067F, 0.168101996F, 0.14133133F, 0.12151394F, 0.0944106355F,
     0.0769192949F, 0.0647792965F, 0.0558934622F, 0.043798767F, 0.0359748602F, 0.0305093806F, 0.5F,
     0.414032102F, 0.349618822F, 0.30023247F},
    {-0.137363955F, -0.0902712792F, -0.062738277F, -0.0456139557F, -0.0344004072F, -0.0212997179F,
     -0.0143457586F, -0.0102663971F, -0.00768789556F, -0.00475318357F, -0.00321849738F,
     -0.0023198945F, -0.398942262F, -0.295434266F, -0.224132866F, -0.173767939F},
    {0.0621074438F, 0.0351860598F, 0.0213124007F, 0.0136480881F, 0.00915644132F, 0.00460563786F,
     0.00259518786F, 0.00159044738F, 0.00103909848F, 0.000510047132F, 0.00028571533F,
     0.000175410023F, 0.249999076F, 0.170085996F, 0.118775778F, 0.0849530175F},
    {-0.025093263F, -0.0124969091F, -0.00670423824F, -0.00383111066F, -0.00231214613F,
     -0.000958683144F, -0.000456469133F, -0.000241180678F, -0.000138249801F, -5.41445334e-05F,
     -2.51735964e-05F, -1.31916249e-05F, -0.132949069F, -0.0843042284F, -0.0549149215F,
     -0.0366843231F},
    {0.00925131608F, 0.00414504716F, 0.00198976975F, 0.00102346484F, 0.000555925013F,
     0.00019544056F, 7.90240883e-05F, 3.61246748e-05F, 1.80606039e-05F, 5.7802531e-06F,
     2.22660879e-06F, 9.75344847e-07F, 0.0620063655F, 0.0373837352F, 0.022901969F, 0.0144009655F},
    {-0.00282029761F, -0.00127404602F, -0.000553377497F, -0.00025861754F, -0.000109809633F,
     -3.79971898e-05F, -1.32006735e-05F, -5.26367285e-06F, -1.95324901e-06F, -6.00613305e-07F,
     -1.93265706e-07F, -8.77299868e-08F, -0.0229962785F, -0.0150281303F, -0.00871671736F,
     -0.00519234827F}};
inline Floats tail_of(const Floats& a) {
  const Ints cell = sum_of_bits(bits_of(a + 1.0F), Ints{} + (1 << 20));
  const Floats d = a - (floats_of(cell & -(1 << 21)) - 1.0F);
  const Ints i = cell >> 21;
  Floats p = pick(kTails[5], i);
  for (int k = 4; k >= 0; --k) p = _mm512_fmadd_ps(p, d, pick(kTails[k], i));
  return p;
}

inline Floats abs_of(const Floats& x) { return floats_of(bits_of(x) & 0x7FFFFFFF); }
inline Floats near_abs_of(const Floats& x) {
  return _mm512_min_ps(_mm512_set1_ps(kFar), abs_of(x));  // of NaN the second
}
inline Floats positive_of(const Floats& x) {
  return reinterpret_cast<Floats>(
      _mm512_max_epi32(reinterpret_cast<__m512i>(x), _mm512_setzero_si512()));
}
// e^(-x^2 / 2) where it is not 0, or x is no number.
struct Bell {
  Power power;
  __mmask16 within;
};
inline Bell bell_of(const Floats& x) {
  const Floats square = x * x, shifted = square * kHalfLog + kThirtySeconds;
  return {power_of(shifted, square * kHalfLog - (shifted - kThirtySeconds)),
          _mm512_cmp_ps_mask(square, _mm512_set1_ps(-2.0F * kExpLow), _CMP_NGT_UQ)};
}
inline Floats normal_below(const Floats& x, const Bell& bell) {
  const Floats scale = bell.power.scale * tail_of(abs_of(x));
  return _mm512_maskz_fmadd_ps(bell.within, scale, bell.power.rest, scale);
}
// The slope of GELU by erf at -|x| is e^(-x^2 / 2) times what tail_of says, less |x| / sqrt(2 pi);
// at |x| it is 1 less that.
inline Floats gelu_erf_slope(const Floats& x) {
  const Floats a = abs_of(x);
  const Bell bell = bell_of(x);
  const Floats below =
      _mm512_maskz_mul_ps(bell.within, bell.power.value(), tail_of(a) - 0.3989422804014327F * a);
  const Floats one = floats_of((bits_of(x) >= 0) & __builtin_bit_cast(int, 1.0F));
  return one - floats_of(bits_of(below) ^ (bits_of(x) & (1 << 31)));
}
