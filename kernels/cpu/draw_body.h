// Dropout's draws; included by rows_body.h. Philox4x32-10 (Salmon et al. 2011) for as many counters
// as a vector has words of 64 bits, of each of which only the lower half counts: that is what the
// instruction multiplies.

typedef uint64_t Words __attribute__((vector_size(kVectorBytes)));
constexpr int kCounters = kVectorBytes / 8;
// Sets of counters whose rounds take turns, as each round waits for the one before; as many as the
// registers hold.
constexpr int kSets = kVectorBytes == 64 ? 4 : 2;
constexpr int kDraws = 8 * kCounters * kSets;  // at once

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

constexpr uint64_t kLow = 0xFFFFFFFF, kFirst = 0xD2511F53, kSecond = 0xCD9E8D57;
struct RoundKeys {
  uint64_t of[10][2];
  explicit RoundKeys(uint64_t seed) {
    uint64_t k0 = seed & kLow, k1 = seed >> 32;
    for (auto& keys : of) {
      keys[0] = k0, keys[1] = k1;
      k0 = (k0 + 0x9E3779B9) & kLow;
      k1 = (k1 + 0xBB67AE85) & kLow;
    }
  }
};

// Of kCount sets. halves[8 * i + e]: the lower half, or of an odd e the upper one, of word e / 2 of
// the counter first + i, as long as no more than the counter's lowest word changes.
template <int kCount>
inline void philox(const RoundKeys& keys, uint64_t stream, uint64_t first, uint16_t* halves) {
  // Even lanes hold the first half of the counters, so that pairs of lanes lie in order below.
  Words places, a[kCount], b[kCount], c[kCount], d[kCount];
  for (int lane = 0; lane < kCounters; ++lane) {
    places[lane] = static_cast<uint64_t>(lane / 2 + lane % 2 * (kCounters / 2));
  }
  // The counters differ in one word, so that half of the first two rounds is the same for all.
  const uint64_t same1 = (stream & kLow) * kSecond;
  const uint64_t same2 = (same1 >> 32 ^ first >> 32 ^ keys.of[0][0]) * kFirst;
  for (int set = 0; set < kCount; ++set) {
    const Words counters = places + ((first & kLow) + static_cast<uint64_t>(set * kCounters));
    const Words p0 = low_products(counters, Words{} + kFirst);
    const Words p1 = low_products(p0 >> 32 ^ (stream >> 32 ^ keys.of[0][1]), Words{} + kSecond);
    a[set] = p1 >> 32 ^ (same1 ^ keys.of[1][0]);
    b[set] = p1;
    c[set] = p0 ^ (same2 >> 32 ^ keys.of[1][1]);
    d[set] = Words{} + same2;
  }
  for (int round = 2; round < 9; ++round) {
    for (int set = 0; set < kCount; ++set) {
      const Words p0 = low_products(a[set], Words{} + kFirst);
      const Words p1 = low_products(c[set], Words{} + kSecond);
      a[set] = p1 >> 32 ^ b[set] ^ keys.of[round][0];
      c[set] = p0 >> 32 ^ d[set] ^ keys.of[round][1];
      b[set] = p1;
      d[set] = p0;
    }
  }
  typedef uint32_t Singles __attribute__((vector_size(kVectorBytes)));
  Singles even;
  for (int i = 0; i < 2 * kCounters; i += 4) {
    even[i] = static_cast<uint32_t>(i + 1);
    even[i + 1] = static_cast<uint32_t>(i);
    even[i + 2] = static_cast<uint32_t>(i + 1 + 2 * kCounters);
    even[i + 3] = static_cast<uint32_t>(i + 2 * kCounters);
  }
  const Singles odd = even + 2;
  for (int set = 0; set < kCount; ++set) {
    // The last round leaves a word above the one that comes after it.
    const Words ba = low_products(c[set], Words{} + kSecond) ^ b[set] << 32 ^ keys.of[9][0] << 32;
    const Words dc = low_products(a[set], Words{} + kFirst) ^ d[set] << 32 ^ keys.of[9][1] << 32;
    const auto from = reinterpret_cast<Singles>(ba), other = reinterpret_cast<Singles>(dc);
    // Stored as whole vectors: what is read again would else wait for the memory.
    const Singles four[2] = {__builtin_shuffle(from, other, even),
                             __builtin_shuffle(from, other, odd)};
    __builtin_memcpy(halves + set * 8 * kCounters, four, sizeof(four));
  }
}

// act(the first half, where it stands, a count) for runs of the halves of the elements first + i.
template <typename Act>
inline void draw(uint64_t seed, uint64_t stream, uint64_t first, int64_t n, const Act& act) {
  alignas(64) uint16_t halves[kDraws];
  const RoundKeys keys(seed);
  for (int64_t done = 0; done < n;) {
    const uint64_t index = first + static_cast<uint64_t>(done), counter = index / 8;
    const int64_t skipped = static_cast<int64_t>(index % 8);
    if (n - done + skipped > kDraws / 2) {
      philox<kSets>(keys, stream, counter, halves);
    } else {
      philox<kSets / 2>(keys, stream, counter, halves);
    }
    // Up to where the counters' second word changes.
    const uint64_t same = (kLow - (counter & kLow) + 1) * 8;
    const int64_t drawn = same < kDraws ? static_cast<int64_t>(same) : kDraws;
    const int64_t count = n - done < drawn - skipped ? n - done : drawn - skipped;
    act(halves + skipped, done, count);
    done += count;
  }
}

#ifdef __AVX512F__
inline __m512 kept_floats(const uint16_t* halves, int dropped, __m512 values) {
  const __m256i from = _mm256_set1_epi16(static_cast<int16_t>(dropped));
  const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(halves));
  return _mm512_maskz_mov_ps(_mm256_cmpge_epu16_mask(at, from), values);
}
#endif
// The values whose halves are at least `dropped` (kept_at), 0 for the others.
template <typename T>
inline T kept_of(const uint16_t* half, int dropped, T value) {
  return *half >= dropped ? value : T{0};
}
template <typename T>
inline Lanes<T> kept_of(const uint16_t* halves, int dropped, const Lanes<T>& values) {
#ifdef __AVX512F__
  if constexpr (sizeof(T) == sizeof(float)) return kept_floats(halves, dropped, values);
#endif
  typedef uint16_t Drawn __attribute__((vector_size(2 * kLanesOf<T>), aligned(2), may_alias));
  const auto at =
      __builtin_convertvector(*reinterpret_cast<const Drawn*>(halves), decltype(values < values));
  return at >= dropped ? values : Lanes<T>{};
}
template <typename T>
inline Lanes<T> all_of(WholeLanes, T value) {
  return Lanes<T>{} + value;
}
template <typename T>
inline T all_of(OneElement, T value) {
  return value;
}

template <typename T>
void draw_kept(uint64_t seed, uint64_t stream, uint64_t first, int dropped, T kept, T* keep,
               int64_t n) {
  draw(seed, stream, first, n, [=](const uint16_t* halves, int64_t begin, int64_t count) {
    T* const to = keep + begin;
    for_row<T>(count, [=](auto by, int64_t i) {
      by.put(false, to + i, kept_of<T>(halves + i, dropped, all_of(by, kept)));
    });
  });
}

// Of bf16, a vector of 32 words' halves: values times `kept`.
inline Lanes<bfloat16> kept_halves(const uint16_t* halves, int dropped, float kept,
                                   const Lanes<bfloat16>& values) {
  const Lanes<bfloat16> scaled = rounded(evens_of(values) * kept, odds_of(values) * kept);
  const auto from = static_cast<uint16_t>(dropped);
#ifdef __AVX512F__
  const __mmask32 stays = _mm512_cmpge_epu16_mask(_mm512_loadu_si512(halves),
                                                  _mm512_set1_epi16(static_cast<int16_t>(from)));
  return reinterpret_cast<Lanes<bfloat16>>(
      _mm512_maskz_mov_epi16(stays, reinterpret_cast<__m512i>(scaled)));
#else
  typedef uint16_t Drawn __attribute__((vector_size(kVectorBytes), aligned(2), may_alias));
  const auto stays = *reinterpret_cast<const Drawn*>(halves) >= from;
  return scaled & reinterpret_cast<const Lanes<bfloat16>&>(stays);
#endif
}
template <typename T>
inline void drop_row(const uint16_t* halves, int dropped, T kept, const T* from, bool lines, T* to,
                     int64_t n) {
  for_row<T>(n, [=](auto by, int64_t i) {
    by.put(lines, to + i, kept_of<T>(halves + i, dropped, by.at(from + i) * kept));
  });
}
inline void drop_row(const uint16_t* halves, int dropped, float kept, const bfloat16* from,
                     bool lines, bfloat16* to, int64_t n) {
  constexpr int64_t kLanes = kLanesOf<bfloat16>;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    WholeLanes::put(lines, to + i, kept_halves(halves + i, dropped, kept, lanes_at(from + i)));
  }
  if (i == n) return;
  bfloat16 few[kLanes] = {};
  uint16_t few_halves[kLanes] = {};
  copy_row(from + i, few, n - i);
  copy_row(halves + i, few_halves, n - i);
  lanes_at(few) = kept_halves(few_halves, dropped, kept, lanes_at(few));
  copy_row(few, to + i, n - i);
}
template <typename S>
void drop(uint64_t seed, uint64_t stream, uint64_t first, int dropped, Wide<S> kept, const S* x,
          bool past, S* y, int64_t n) {
  draw(seed, stream, first, n, [=](const uint16_t* halves, int64_t begin, int64_t count) {
    for (int64_t i = 0; i < kDraws; i += kGroup) fetch_group(x + begin + 1024 + i);
    drop_row(halves, dropped, kept, x + begin, by_lines(past, y + begin), y + begin, count);
  });
}
