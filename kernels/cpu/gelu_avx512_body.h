// GELU of bf16, GELU by erf of fp32, and their slopes, for a whole vector of AVX-512; included by
// rows_body.h, rules as there.
//
// Of n = -|x|, GELU is n Q(n) there and that plus |x| at |x|, where Q is the normal distribution,
// or what GELU by tanh has for it; the slope is S(n) = Q(n) + n Q'(n) and 1 - S(n). S has one zero,
// which is taken out of it, so that it is as exact beside that as elsewhere (of fp32 beside the
// float nearest to it).
//
// Numerical policy, bf16: Q and S(n) / (n - zero) are one of 15 cubics each, the one whose number i
// is nearest to n^2 / 2: pieces of n that become shorter as both fall faster. What they err by
// moves a result by less than 0.3 units of bf16's last place, 0.9 where it is below 2^-16. Below
// -5.38 both are 0: what is missing there is less than 2^-22 (slope: 2^-20), which is what fp32
// loses of 1 + erf(x).
//
// fp32: both are powers of two, whose exponents are one of 15 polynomials of degree 4 each, as they
// are nearly parabolas. With roundings Q errs by less than 4e-7 of itself above -4, 1.1e-6 down to
// where it is no normal number; the slope by less than 1e-7 left of 0, 1.3e-7 right of it. Below
// -13 both are 0.

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

// value(at), a cubic, by its powers.
struct Cubic {
  double of[4] = {};
  template <typename F>
  constexpr Cubic(const double (&at)[4], const F& value) {
    double difference[4] = {};
    for (int k = 0; k < 4; ++k) difference[k] = value(at[k]);
    for (int order = 1; order < 4; ++order) {
      for (int k = 3; k >= order; --k) {
        difference[k] = (difference[k] - difference[k - 1]) / (at[k] - at[k - order]);
      }
    }
    of[0] = difference[3];  // Newton's form, multiplied out
    for (int k = 2; k >= 0; --k) {
      for (int power = 3; power > 0; --power) of[power] = of[power - 1] - at[k] * of[power];
      of[0] = difference[k] - at[k] * of[0];
    }
  }
};

// of[k][i]: what piece i has before n^k. Each goes through four points, those of Chebyshev.
struct Cubics {
  static constexpr float kBehind = 5.5F;  // in piece 15, which is 0
  alignas(64) float of[4][16] = {};
  template <typename F>
  explicit constexpr Cubics(const F& f) {
    for (int i = 0; i < 15; ++i) {
      const double near = i == 0 ? 0 : __builtin_sqrt(2 * i - 1), far = __builtin_sqrt(2 * i + 1);
      const double middle = -(near + far) / 2, half = (far - near) / 2;
      const Cubic cubic({middle - 0.9238795325112867 * half, middle - 0.3826834323650898 * half,
                         middle + 0.3826834323650898 * half, middle + 0.9238795325112867 * half},
                        f);
      for (int k = 0; k < 4; ++k) of[k][i] = static_cast<float>(cubic.of[k]);
    }
  }
};
inline Floats cubic_at(const float (&of)[4][16], const Ints& i, const Floats& n) {
  Floats p = pick(of[3], i);
  for (int k = 2; k >= 0; --k) p = _mm512_fmadd_ps(p, n, pick(of[k], i));
  return p;
}
// Which piece n is in, modulo 16.
inline Ints piece_of(const Floats& n) {
  constexpr float kTwos = 0x1.8p24F;  // adding it leaves half of n^2 in the last bits, rounded
  return bits_of(_mm512_fmadd_ps(n, n, _mm512_set1_ps(kTwos)));
}
inline Floats on_piece(const Cubics& cubics, const Floats& n) {
  return cubic_at(cubics.of, piece_of(n), n);
}

// 2^(start + d cubic(d)), d the distance from a point; a piece is all n whose 1 - n begins with the
// same two bits after the first. At its point, somewhere near its middle, the exponent is a 32nd
// within 1.3e-7, so that start and kThirtySeconds have an exact sum.
struct PowersOfCubics {
  static constexpr float kBehind = 14;  // in the piece before the first, which is 0
  alignas(64) float point[16] = {}, start[16] = {}, of[4][16] = {};
  template <typename F>
  constexpr PowersOfCubics(const float (&points)[15], const F& f) {
    const auto exponent = [&](double n) { return __builtin_log2(f(n)); };
    for (int piece = 0; piece < 15; ++piece) {
      const int i = (piece + 12) % 16, octave = 1 << piece / 4;
      const double width = octave / 4.0, at = points[piece];
      const double middle = 1 - octave - width * (piece % 4 + 0.5), half = width / 2;
      const double nearest = static_cast<int>(32 * exponent(at) - 0.5) / 32.0;  // it is below 0
      // The point is the fifth of Chebyshev's, nearly.
      const double d[4] = {
          middle - 0.9510565162951536 * half - at, middle - 0.5877852522924731 * half - at,
          middle + 0.5877852522924731 * half - at, middle + 0.9510565162951536 * half - at};
      const Cubic cubic(d, [&](double x) { return (exponent(at + x) - nearest) / x; });
      point[i] = points[piece];
      start[i] = static_cast<float>(kThirtySeconds + nearest);
      for (int k = 0; k < 4; ++k) of[k][i] = static_cast<float>(cubic.of[k]);
    }
    start[11] = kThirtySeconds - 127;  // as a float's exponent that of 0
  }
};
inline Floats on_piece(const PowersOfCubics& powers, const Floats& n) {
  const Ints i = bits_of(1.0F - n) >> 21;
  const Floats d = n - pick(powers.point, i), cubic = cubic_at(powers.of, i, d);
  const Floats start = pick(powers.start, i), shifted = _mm512_fmadd_ps(cubic, d, start);
  return power_of(shifted, _mm512_fmadd_ps(cubic, d, start - shifted)).value();
}

template <typename By>
constexpr auto kBelow = [](double n) { return By::below(-n); };
template <typename By>
constexpr auto kSlopeBelow =
    [](double n) { return gelu_slope_below<By>(-n) / (n - slope_zero<By>()); };
template <typename By>
constexpr Cubics kCubicsBelow{kBelow<By>};
template <typename By>
constexpr Cubics kCubicsOfSlope{kSlopeBelow<By>};
constexpr PowersOfCubics kErfBelow{
    {-0.104208305F, -0.396203458F, -0.622565329F, -0.88289851F, -1.2404002F, -1.7546705F,
     -2.22207832F, -2.71791339F, -3.49289274F, -4.66150665F, -5.40058851F, -6.45706463F,
     -8.12063503F, -10.1860189F, -11.9236975F},
    kBelow<ByErf>};
constexpr PowersOfCubics kErfSlope{
    {-0.145607248F, -0.373705745F, -0.628688753F, -0.891255021F, -1.27052772F, -1.7329607F,
     -2.29481983F, -2.71019173F, -3.68122482F, -4.32595634F, -5.36322641F, -6.50966311F,
     -7.91324663F, -9.79973412F, -12.1528959F},
    kSlopeBelow<ByErf>};

// Where a slope is taken, and what of S(n) / (n - zero) it is.
template <typename By>
struct SlopeAt {
  Floats n;
  __mmask16 positive;
  SlopeAt(const Floats& x, float behind) {
    constexpr int kSign = 1 << 31;
    n = _mm512_max_ps(_mm512_set1_ps(-behind), floats_of(bits_of(x) | kSign));
    positive = _mm512_testn_epi32_mask(reinterpret_cast<__m512i>(x), _mm512_set1_epi32(kSign));
  }
  Floats slope(const Floats& of_piece) const {
    constexpr float kZero = static_cast<float>(slope_zero<By>());
    const Floats below = (n - kZero) * of_piece;
    return _mm512_mask_sub_ps(below, positive, _mm512_set1_ps(1), below);
  }
};
// Q and S(n) / (n - zero) as they are on pieces.
template <typename By, const auto& kPieces, const auto& kPiecesOfSlope>
struct GeluOnPieces {
  static constexpr bool kByLanes = true;
  static Floats value(const Floats& x) {
    constexpr int kNegativeOfLesser = 0b1110;
    const Floats n = _mm512_range_ps(x, _mm512_set1_ps(kPieces.kBehind), kNegativeOfLesser);
    const Floats positive = _mm512_max_ps(_mm512_set1_ps(-0.0F), x);  // of NaN or 0 the second
    return _mm512_fmadd_ps(n, on_piece(kPieces, n), positive);
  }
  static Floats slope(const Floats& x) {
    const SlopeAt<By> at(x, kPiecesOfSlope.kBehind);
    return at.slope(on_piece(kPiecesOfSlope, at.n));
  }
};
template <typename By>
struct GeluOfHalves : GeluOnPieces<By, kCubicsBelow<By>, kCubicsOfSlope<By>> {
  // In two steps (map_body.h).
  struct Slope {
    SlopeAt<By> at;
    Ints piece;
    explicit Slope(const Floats& x) : at(x, Cubics::kBehind), piece(piece_of(at.n)) {}
    [[gnu::always_inline]] void hold() { asm volatile("" : "+v"(at.n), "+v"(piece)); }
    Floats end() const { return at.slope(cubic_at(kCubicsOfSlope<By>.of, piece, at.n)); }
  };
};
template <>
struct GeluTanh<bfloat16> : GeluOfHalves<ByTanh> {};
template <>
struct GeluErf<bfloat16> : GeluOfHalves<ByErf> {};
template <>
struct GeluErf<float> : GeluOnPieces<ByErf, kErfBelow, kErfSlope> {};
