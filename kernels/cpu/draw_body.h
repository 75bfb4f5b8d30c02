// Dropout's draws; included by rows_body.h. Philox4x32-10 (Salmon et al. 2011) for as many counters
// as a vector has words of 64 bits, of each of which only the lower half counts: that is what the
// instruction multiplies.

typedef uint64_t Words __attribute__((vector_size(kVectorBytes)));
constexpr int kCounters = kVectorBytes / 8;
// Sets of counters whose rounds take turns, as each round waits for the one before; as many as the
// registers hold.
constexpr int kSets = kVectorBytes == 64 ? 4 : 2;
constexpr int kDraws = 128;  // at once

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
  Words places, a[kSets], b[kSets], c[kSets], d[kSets];
  for (int lane = 0; lane < kCounters; ++lane) {
    places[lane] = static_cast<uint64_t>(lane / 2 + lane % 2 * (kCounters / 2));
  }
  for (int set = 0; set < kSets; ++set) {
    a[set] = places + (first + static_cast<uint64_t>(set * kCounters));
    b[set] = a[set] >> 32;
    c[set] = Words{} + stream;
    d[set] = Words{} + (stream >> 32);
  }
  constexpr uint64_t kLow = 0xFFFFFFFF;
  uint64_t k0 = seed & kLow, k1 = seed >> 32;
  for (int round = 0; round < 10; ++round) {
    for (int set = 0; set < kSets; ++set) {
      const Words p0 = low_products(a[set], Words{} + uint64_t{0xD2511F53});
      const Words p1 = low_products(c[set], Words{} + uint64_t{0xCD9E8D57});
      a[set] = (p1 >> 32) ^ b[set] ^ k0;
      c[set] = (p0 >> 32) ^ d[set] ^ k1;
      b[set] = p1;
      d[set] = p0;
    }
    k0 = (k0 + 0x9E3779B9) & kLow;
    k1 = (k1 + 0xBB67AE85) & kLow;
  }
  Words even, odd;
  for (int i = 0; i < kCounters; i += 2) {
    even[i] = static_cast<uint64_t>(i);
    even[i + 1] = static_cast<uint64_t>(i + kCounters);
  }
  odd = even + 1;
  for (int set = 0; set < kSets; ++set) {
    const Words ab = (a[set] & kLow) | (b[set] << 32), cd = (c[set] & kLow) | (d[set] << 32);
    // Stored as whole vectors: what is read again would else wait for the memory.
    const Words halves[2] = {__builtin_shuffle(ab, cd, even), __builtin_shuffle(ab, cd, odd)};
    __builtin_memcpy(words + set * 4 * kCounters, halves, sizeof(halves));
  }
}

// act(the first word, where it stands, a count) for runs of the words of the elements first + i.
template <typename Act>
inline void draw(uint64_t seed, uint64_t stream, uint64_t first, int64_t n, const Act& act) {
  alignas(64) uint32_t words[kDraws];
  for (int64_t done = 0; done < n;) {
    const uint64_t index = first + static_cast<uint64_t>(done), counter = index / 4;
    for (int at = 0; at < kDraws; at += 4 * kCounters * kSets) {
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
    for (int64_t i = 0; i < kDraws; i += kGroup) fetch_group(source + 1024 + i);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const T value = source[i] * kept;
      to[i] = static_cast<int>(words[i] >> 8) >= from ? value : T{0};
    }
  });
}
