// Functions of math_body.h for a pack of vectors of AVX2; included by it, rules as there.
//
// Numerical policy: those of math_body.h, but log is e ln 2 + r + r^2 times a polynomial of degree
// 6, x = (1 + r) 2^e, -1/3 <= r < 1/3 (that of Arm's optimized routines): less than 3.4 units in
// the last place off; of what is no normal number it is the C library's.

typedef LanesOf<int>::Type Ints;
typedef LanesOf<unsigned>::Type Unsigned;
inline Ints bits_of(const Lanes<float>& x) { return reinterpret_cast<Ints>(x); }
inline Lanes<float> floats_of(const Ints& bits) { return reinterpret_cast<Lanes<float>>(bits); }
// Wraps, in lanes that nobody reads.
inline Ints sum_of_bits(const Ints& x, const Ints& y) {
  return reinterpret_cast<Ints>(reinterpret_cast<Unsigned>(x) + reinterpret_cast<Unsigned>(y));
}

inline Pack times_power(const Pack& p, const Pack& shifted) {
  return each([](const auto& a,
                 const auto& b) { return floats_of(sum_of_bits(bits_of(a), bits_of(b) << 23)); },
              p, shifted);
}
inline Pack power_in(const Pack& shifted) {
  return each([](const auto& x) { return floats_of(bits_of(x) << 23); }, shifted);
}
inline Pack abs_of(const Pack& x) {
  return each([](const auto& v) { return floats_of(bits_of(v) & 0x7FFFFFFF); }, x);
}
inline Pack with_sign_of(const Pack& x, const Pack& sign) {
  return each(
      [](const auto& a, const auto& b) {
        return floats_of((bits_of(a) & 0x7FFFFFFF) | (bits_of(b) & ~0x7FFFFFFF));
      },
      x, sign);
}
inline Pack sqrt_of(const Pack& x) {
  return each([](const auto& v) { return Lanes<float>(_mm256_sqrt_ps(v)); }, x);
}
// Of NaN the second of what is compared.
inline Pack at_most(float bound, const Pack& x) {
  return each([=](const auto& v) { return Lanes<float>(_mm256_min_ps(_mm256_set1_ps(bound), v)); },
              x);
}
inline Pack at_least(float bound, const Pack& x) {
  return each([=](const auto& v) { return Lanes<float>(_mm256_max_ps(_mm256_set1_ps(bound), v)); },
              x);
}
template <float kLow, float kHigh>
inline Pack cut_of(const Pack& u) {
  const __m256i above = _mm256_set1_epi32(__builtin_bit_cast(int, kHigh));
  const __m256i below = _mm256_set1_epi32(__builtin_bit_cast(int, kLow));
  return each(
      [=](const auto& v) {
        const __m256i least = _mm256_min_epi32(reinterpret_cast<__m256i>(v), above);
        return reinterpret_cast<Lanes<float>>(_mm256_min_epu32(least, below));
      },
      u);
}

constexpr int kLeastOfLog = 0x3F2AAAAB;  // two thirds, the least of 1 + r
inline Pack log_of(const Pack& x) {
  constexpr float kLog2 = 0.693147182F;
  const auto above = each([](const auto& v) { return floats_of(bits_of(v) - kLeastOfLog); }, x);
  const Pack e = each(
      [](const auto& v) { return __builtin_convertvector(bits_of(v) >> 23, Lanes<float>); }, above);
  const Pack r = each(
      [](const auto& v) { return floats_of((bits_of(v) & 0x7FFFFF) + kLeastOfLog) - 1.0F; }, above);
  const Pack square = r * r;
  const Pack p = polynomial(r, -0x1.3e737cp-3F, 0x1.5a9aa2p-3F, -0x1.4f9934p-3F, 0x1.961348p-3F,
                            -0x1.00187cp-2F, 0x1.555d7cp-2F, -0x1.ffffc8p-2F);
  Pack y = p * square + (e * kLog2 + r);
  for (int k = 0; k < Pack::kVectors; ++k) {  // subnormal, zero, negative, infinity or NaN
    const Ints bits = bits_of(x.of[k]);
    const Ints other = (bits < 0x800000) | (bits >= 0x7F800000);
    if (_mm256_testz_si256(reinterpret_cast<__m256i>(other), reinterpret_cast<__m256i>(other))) {
      continue;
    }
    for (int lane = 0; lane < kLanesOf<float>; ++lane) {
      if (other[lane] != 0) y.of[k][lane] = ::logf(x.of[k][lane]);
    }
  }
  return y;
}
