// The table of bf16 for processors with AVX512_BF16: a word is a pair of bf16, and a product of
// words is vdpbf16ps, which adds two products to a float (rounding to nearest, subnormals as zero).
#include <immintrin.h>

#include <utility>

#include "kernels/cpu/tiles_levels.h"

#define WEFT_VECTOR_BYTES 64

namespace weft::cpu {
namespace {
#include "kernels/cpu/tiles_body.h"

struct Pairs : F32 {
  using Word = int32_t;
  using Right = __m512bh;
  static Right right(const Word* from) {
    return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from));
  }
  static Vec multiply_add(Word a, const Right& b, const Vec& sum) {
    const __m512bh pair = reinterpret_cast<__m512bh>(_mm512_set1_epi32(a));
    return _mm512_dpbf16_ps(sum, pair, b);
  }
};

constexpr int64_t kPair = 4;  // bytes

// The pair at from, the second zero where it is beyond `count`.
inline int32_t pair_at(const bfloat16* from, int64_t count) {
  int32_t word = 0;
  __builtin_memcpy(&word, from, count >= 2 ? 4 : 2);
  return word;
}

// Rows of an even number of features are pairs already.
Operand pairs_by_feature(TileRows<const bfloat16> x, int64_t count, int64_t features,
                         void* scratch) {
  if (features % 2 == 0) return {x.data, x.stride * 2, x.stride * 2};
  const int64_t words = (features + 1) / 2;
  int32_t* to = static_cast<int32_t*>(scratch);
  for (int64_t i = 0; i < count; ++i, to += words) {
    const bfloat16* from = x.data + i * x.stride;
    for (int64_t w = 0; w < words; ++w) to[w] = pair_at(from + 2 * w, features - 2 * w);
  }
  return {scratch, words * kPair, words * kPair};
}

// to[w] := the pair (a[w], b[w]) for w < count, zeros to `width`.
inline void join_rows(const bfloat16* a, const bfloat16* b, int64_t count, int64_t width,
                      int32_t* to) {
  for (int64_t d = 0; d < width; d += 16) {
    const int64_t left = count - d;
    const __mmask16 mask = left >= 16 ? 0xFFFF : left <= 0 ? 0 : (1U << left) - 1;
    const __m256i low = _mm256_maskz_loadu_epi16(mask, a + (left > 0 ? d : 0));
    const __m256i high = _mm256_maskz_loadu_epi16(mask, b + (left > 0 ? d : 0));
    const __m512i pair = _mm512_or_si512(_mm512_cvtepu16_epi32(low),
                                         _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
    const __mmask16 inside = width - d >= 16 ? 0xFFFF : (1U << (width - d)) - 1;
    _mm512_mask_storeu_epi32(to + d, inside, pair);
  }
}

Operand pairs_by_row(TileRows<const bfloat16> x, int64_t count, int64_t features, void* scratch) {
  int32_t* to = static_cast<int32_t*>(scratch);
  for (int64_t i = 0; i < count; i += 2, to += features) {
    const bfloat16* from = x.data + i * x.stride;
    if (i + 1 < count) {
      join_rows(from, from + x.stride, features, features, to);
    } else {
      for (int64_t d = 0; d < features; ++d) to[d] = from[d].bits;
    }
  }
  return {scratch, features * kPair, features * kPair};
}

void pack_pair_lanes(TileRows<const bfloat16> x, int64_t count, int64_t features, void* to) {
  const int64_t words = (features + 1) / 2;
  to_lanes<F32>(count, words, static_cast<float*>(to), kTileLanes,
                [&](int64_t q, int64_t w) -> F32::Vec {
                  const bfloat16* from = x.data + q * x.stride + 2 * w;
                  const int64_t left = features - 2 * w;
                  const __mmask32 mask = left >= 32 ? 0xFFFFFFFF : (1U << left) - 1;
                  return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, from));
                });
}

void pack_pair_rows(TileRows<const bfloat16> x, int64_t count, int64_t features, int64_t width,
                    void* to) {
  int32_t* at = static_cast<int32_t*>(to);
  for (int64_t q = 0; q < kTileLanes; q += 2, at += width) {
    const bfloat16* from = x.data + q * x.stride;
    if (q + 1 < count) {
      join_rows(from, from + x.stride, features, width, at);
    } else {
      const int64_t valid = q < count ? features : 0;
      for (int64_t d = 0; d < width; ++d) at[d] = d < valid ? from[d].bits : 0;
    }
  }
}

// Lane by lane the pair of two rows.
inline __m512i pairs_of(const __m512bh& rows) {
  alignas(64) static constexpr int16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                     21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                     11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), reinterpret_cast<__m512i>(rows));
}
inline __m512bh rounded(const F32::Vec& first, const F32::Vec& second) {
  return _mm512_cvtne2ps_pbh(second, first);
}

void soften_pairs(int64_t keys, const float* scores, const float* keep, void* weights,
                  float* largest, float* total, float* shrink) {
  int32_t* to = static_cast<int32_t*>(weights);
  for (int64_t lane = 0; lane < kTileLanes; lane += F32::kLanes) {
    F32::Vec first{};
    soften_lane<F32>(lane, keys, scores, keep, largest, total, shrink,
                     [&, lane](int64_t j, const F32::Vec& weight) {
                       if (j % 2 == 0) first = weight;
                       if (j % 2 == 0 && j + 1 < keys) return;
                       const F32::Vec second = j % 2 == 0 ? F32::Vec{} : weight;
                       _mm512_storeu_si512(to + j / 2 * kTileLanes + lane,
                                           pairs_of(rounded(first, second)));
                     });
  }
}

void gradient_pairs(int64_t keys, const GradientTerms<float>& terms, void* weights, void* d_scores,
                    void* d_score_words) {
  uint16_t* to = static_cast<uint16_t*>(weights);
  uint16_t* d_to = static_cast<uint16_t*>(d_scores);
  int32_t* pairs = static_cast<int32_t*>(d_score_words);
  const auto keep_both = [](uint16_t* at, const __m512bh& rows, bool second) {
    const __m512i both = reinterpret_cast<__m512i>(rows);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm512_castsi512_si256(both));
    if (!second) return;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at + kTileLanes),
                        _mm512_extracti64x4_epi64(both, 1));
  };
  for (int64_t j = 0; j < keys; j += 2) {
    const bool second = j + 1 < keys;
    for (int64_t lane = 0; lane < kTileLanes; lane += F32::kLanes) {
      const int64_t at = j * kTileLanes + lane;
      const Gradient<F32> a = gradient_at<F32>(at, lane, terms);
      Gradient<F32> b{};
      if (second) b = gradient_at<F32>(at + kTileLanes, lane, terms);
      const __m512bh d = rounded(a.d_score, b.d_score);
      keep_both(to + at, rounded(a.weight, b.weight), second);
      keep_both(d_to + at, d, second);
      _mm512_storeu_si512(pairs + j / 2 * kTileLanes + lane, pairs_of(d));
    }
  }
}

constexpr TileKernels<bfloat16> pair_table() {
  TileKernels<bfloat16> k = table<F32, bfloat16>();
  k.step = 2;
  k.word_bytes = kPair;
  k.by_feature = pairs_by_feature;
  k.by_row = pairs_by_row;
  k.pack_lanes = pack_pair_lanes;
  k.pack_rows = pack_pair_rows;
  k.scores = scores<Pairs, 2>;
  k.collect = collect<Pairs, 2>;
  k.spread = spread<Pairs, 2>;
  k.soften = soften_pairs;
  k.gradient = gradient_pairs;
  return k;
}

}  // namespace

extern const TileKernels<bfloat16> tiles_bf16_avx512bf16 = pair_table();

}  // namespace weft::cpu
