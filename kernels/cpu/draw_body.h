// Dropout's draws; included by rows_body.h. Philox4x32-10 (Salmon et al. 2011) for as many counters
// as a vector has words of 64 bits, of each of which only the lower half counts: that is what the
// instruction multiplies.

typedef uint64_t Words __attribute__((vector_size(kVectorBytes)));
constexpr int kCounters = kVectorBytes / 8;
constexpr int kDraws = 64;  // at once

#ifdef __AVX512F__
inline Words low_products(const Words& x, const Words& y) {
  return reinterpret_cast<Words>(
      _mm512_maskz_mul_epu32(0xFF, reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(y)));
}
#elif defined(__AVX2__)
inline Words low_products(const Words& x, const Words& y) {
  return reinterpret_cast<Words>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(y)));
}
#else
inline Words low_products(const Words& x, const Words& y) {
  return reinterpret_cast<Words>(
      _mm_mul_epu32(reinterpret_cast<__m128i>(x), reinterpret_cast<__m128i>(y)));
}
#endif

// words[4 * i + w] of the counters first + i.
inline void philox(uint64_t seed, uint64_t stream, uint64_t first, uint32_t* words) {
  // Even lanes hold the first half of the counters, so that pairs of lanes lie in order below.
  Words a;
  for (int lane = 0; lane < kCounters; ++lane) {
    a[lane] = static_cast<uint64_t>(lane / 2 + lane % 2 * (kCounters / 2));
  }
  a += first;
  constexpr uint64_t kLow = 0xFFFFFFFF;
  Words b = a >> 32, c = Words{} + stream, d = Words{} + (stream >> 32);
  uint64_t k0 = seed & kLow, k1 = seed >> 32;
  for (int round = 0; round < 10; ++round) {
    const Words p0 = low_products(a, Words{} + uint64_t{0xD2511F53});
    const Words p1 = low_products(c, Words{} + uint64_t{0xCD9E8D57});
    a = (p1 >> 32) ^ b ^ k0;
    c = (p0 >> 32) ^ d ^ k1;
    b = p1;
    d = p0;
    k0 = (k0 + 0x9E3779B9) & kLow;
    k1 = (k1 + 0xBB67AE85) & kLow;
  }
  const Words ab = (a & kLow) | (b << 32), cd = (c & kLow) | (d << 32);
  // Stored as whole vectors: what is read again would else wait for the memory.
  Words even, odd;
  for (int i = 0; i < kCounters; i += 2) {
    even[i] = static_cast<uint64_t>(i);
    even[i + 1] = static_cast<uint64_t>(i + kCounters);
  }
  odd = even + 1;
  const Words halves[2] = {__builtin_shuffle(ab, cd, even), __builtin_shuffle(ab, cd, odd)};
  __builtin_memcpy(words, halves, sizeof(halves));
}

// act(the first word, where it stands, a count) for runs of the words of the elements first + i.
template <typename Act>
inline void draw(uint64_t seed, uint64_t stream, uint64_t first, int64_t n, const Act& act) {
  alignas(64) uint32_t words[kDraws];
  for (int64_t done = 0; done < n;) {
    const uint64_t index = first + static_cast<uint64_t>(done), counter = index / 4;
    for (int at = 0; at < kDraws; at += 4 * kCounters) {
      philox(seed, stream, counter + static_cast<uint64_t>(at / 4), words + at);
    }
    const int64_t skipped = static_cast<int64_t>(index % 4);
    const int64_t count = n - done < kDraws - skipped ? n - done : kDraws - skipped;
    act(words + skipped, done, count);
    done += count;
  }
}
// The upper 24 bits of a word from which on uniform_at >= rate.
inline int first_kept(float rate) { return static_cast<int>(__builtin_ceilf(rate * 0x1p24F)); }

template <typename T>
void draw_kept(uint64_t seed, uint64_t stream, uint64_t first, float rate, T kept, T* keep,
               int64_t n) {
  const int from = first_kept(rate);
  draw(seed, stream, first, n, [=](const uint32_t* words, int64_t at, int64_t count) {
    T* const to = keep + at;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      to[i] = static_cast<int>(words[i] >> 8) >= from ? kept : T{0};
    }
  });
}

template <typename T>
void drop(uint64_t seed, uint64_t stream, uint64_t first, float rate, T kept, const T* x, T* y,
          int64_t n) {
  const int from = first_kept(rate);
  draw(seed, stream, first, n, [=](const uint32_t* words, int64_t at, int64_t count) {
    const T* const source = x + at;
    T* const to = y + at;
    fetch_group(source + 512);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const T value = source[i] * kept;
      to[i] = static_cast<int>(words[i] >> 8) >= from ? value : T{0};
    }
  });
}
