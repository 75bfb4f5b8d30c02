// The inner loops of tiled attention, compiled for each level of level.h: products of small
// matrices with the queries of a tile in the lanes of a vector, and the steps of softmax between
// them.
//
// A tile is `keys` keys by kTileLanes queries; its scores lie as [keys, kTileLanes], so that
// maxima and sums over keys are operations between rows. A product takes its left side as words
// that are broadcast and its right side as rows of words that are loaded: a word is one element
// (float, double) or, where the processor multiplies pairs of bf16 (AVX512_BF16, AMX), two.
// Elsewhere bf16 is widened to float when it is packed. Legend: D features, K keys, Q = kTileLanes.
//
// Numerical policy: Sum is float (double for double); so are scores, maxima, sums and results.
// Products of bf16 take weights and their gradients rounded to bf16, as they do q, k and v.
//
// Thread safety: pure functions. Invariants: 1. a result depends on values and sizes, not on
// addresses. 2. what is hidden (-infinity) has weight exactly 0.
#pragma once

#include <cstdint>

#include "kernels/cpu/level.h"
#include "kernels/tensor/half.h"

namespace weft::cpu {

inline constexpr int64_t kTileLanes = 64;

template <typename In>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<double> {
  using type = double;
};

// The left side of a product: rows of words. Of by_feature, a row a tensor's row; of by_row as the
// table likes it, the words of the next rows are step_bytes further.
struct Operand {
  const void* data = nullptr;
  int64_t stride_bytes = 0, step_bytes = 0;
};

// Rows of a tensor: x[row * stride + feature].
template <typename In>
struct TileRows {
  In* data = nullptr;
  int64_t stride = 0;  // elements
};

// Where a tile meets a table with an entry for each distance. Tiles read it laid out by the query's
// position - the key's, from -reach - kTileLanes + 1 to reach + kTileLanes - 1: what is further
// than `reach` repeats its end. So queries one behind the other read consecutive entries wherever
// the key stands.
struct DistanceTerms {
  const int32_t *query_position = nullptr, *key_position = nullptr;  // [Q], [K]
  int64_t queries = 0;                                               // of the Q that are there
  int32_t reach = 0;
};
constexpr int64_t distance_entries(int64_t reach) { return 2 * (reach + kTileLanes) - 1; }

// What is added to a tile's scores s: s := cap tanh(s / cap) where cap > 0, then - slope
// |key position - query position|, then + what the table by distance says, then + bias.
template <typename Sum>
struct ScoreTerms {
  Sum cap = 0, alibi_slope = 0;
  const int32_t* query_position = nullptr;          // [Q]
  const int32_t* key_position = nullptr;            // [K]
  const Sum* bias = nullptr;                        // [K, Q]; absent: none
  Sum least = -static_cast<Sum>(__builtin_inff());  // with the bias; only -infinity is less
  DistanceTerms distances;
  const Sum* distance_bias = nullptr;  // [distance_entries]; absent: none
};

// Who is hidden: key j from query i unless valid[j] and key_position[j] - query_position[i] in
// [-left, right] and the documents are equal. Absent pointers: no such rule.
struct HideTerms {
  const int32_t *query_position = nullptr, *key_position = nullptr;
  int32_t left = 0, right = 0;
  const int32_t *query_document = nullptr, *key_document = nullptr;
  const uint8_t* valid = nullptr;
};

// One tile of the backward pass. p = exp(s - log_sum_exp); weights := keep p; d_scores := p (keep
// d_weights - delta) slope, which is the gradient of q k^T but for the scale.
template <typename Sum>
struct GradientTerms {
  const Sum *scores = nullptr, *d_weights = nullptr;   // [K, Q]
  const Sum *log_sum_exp = nullptr, *delta = nullptr;  // [Q]
  const Sum* keep = nullptr;                           // [K, Q]; absent: ones
  const Sum* slope = nullptr;                          // [K, Q] of the soft cap; absent: ones
};

template <typename In>
struct TileKernels {
  using Sum = typename SumOf<In>::type;

  int64_t step;  // elements of a word: K and D count as multiples of it
  int64_t word_bytes;
  bool copies;  // whether by_feature and by_row ever use `scratch`

  // Left sides: rows of features in words along features, or in words along rows. Either the
  // tensor itself or a copy in `scratch` (words of count * D, each rounded up to `step`). With a
  // step of 1 both are the same.
  Operand (*by_feature)(TileRows<const In> x, int64_t count, int64_t features, void* scratch);
  Operand (*by_row)(TileRows<const In> x, int64_t count, int64_t features, void* scratch);
  // Right sides; queries from `count` on are zero. lanes: [D / step, Q] words; rows: [Q / step,
  // width] words with zeros from D on.
  void (*pack_lanes)(TileRows<const In> x, int64_t count, int64_t features, void* to);
  void (*pack_rows)(TileRows<const In> x, int64_t count, int64_t features, int64_t width, void* to);

  // out[m, Q] := factor a[m, D] b[D, Q].
  void (*scores)(int64_t m, int64_t features, Sum factor, Operand a, const void* b, Sum* out);
  // out[m, Q] := a[K, m]^T b[K, Q] + (fresh ? 0 : out[m, Q] * shrink[Q]); shrink absent: ones.
  void (*collect)(int64_t m, int64_t keys, Operand a, const void* b, bool fresh, const Sum* shrink,
                  Sum* out);
  // out[m, width] := a[m, Q] b[Q, width] + (fresh ? 0 : out); width a multiple of 16.
  void (*spread)(int64_t m, int64_t width, const void* a, const void* b, bool fresh, Sum* out);

  // slope: where given, receives the derivative of the soft cap.
  void (*adjust)(int64_t keys, const ScoreTerms<Sum>& terms, Sum* scores, Sum* slope);
  void (*hide)(int64_t keys, const HideTerms& terms, Sum* scores);
  // Running softmax: largest and total [Q] move on, shrink := exp(largest before - after); weights
  // [K / step, Q] words := keep exp(scores - largest); they may take the memory of scores.
  void (*soften)(int64_t keys, const Sum* scores, const Sum* keep, void* weights, Sum* largest,
                 Sum* total, Sum* shrink);
  // weights, d_scores: [K, Q] elements for `spread`; d_score_words: [K / step, Q] words for
  // `collect`, the same memory as d_scores where a word is an element.
  void (*gradient)(int64_t keys, const GradientTerms<Sum>& terms, void* weights, void* d_scores,
                   void* d_score_words);
  // The same, d_scores alone and in full precision.
  void (*gradient_only)(int64_t keys, const GradientTerms<Sum>& terms, Sum* d_scores);
  // sums [distance_entries] += d_scores [K, Q], each where its distance says.
  void (*sum_distances)(int64_t keys, const DistanceTerms& terms, const Sum* d_scores, Sum* sums);

  // y[q, d] := x[d, q] * factor[q] for q < count. width: the distance between rows of x.
  void (*store_lanes)(const Sum* x, int64_t count, int64_t features, const Sum* factor,
                      TileRows<In> y);
  void (*store_lanes_wide)(const Sum* x, int64_t count, int64_t features, const Sum* factor,
                           TileRows<Sum> y);
  // y[r, d] := x[r * width + d] * factor.
  void (*store_rows)(const Sum* x, int64_t count, int64_t features, int64_t width, Sum factor,
                     TileRows<In> y);
  void (*store_rows_wide)(const Sum* x, int64_t count, int64_t features, int64_t width, Sum factor,
                          TileRows<Sum> y);
  // to[c * to_stride + q] := x[q, c] for all kTileLanes q, zero for q >= count.
  void (*transpose)(TileRows<const Sum> x, int64_t count, int64_t columns, Sum* to,
                    int64_t to_stride);
  // sum_d a[r, d] b[r, d] for r < count.
  void (*dots)(TileRows<const In> a, TileRows<const In> b, int64_t count, int64_t features,
               Sum* to);
};

template <typename In>
const TileKernels<In>& tiles_at(Level level);
// For heads of so many features: level(), but pairs of bf16 from 16 features on: narrower heads are
// widened, which takes half as long again and rounds neither weights nor their gradients. Or what a
// ForcedTiles says.
Level tile_level(int64_t features);
template <typename In>
const TileKernels<In>& tiles(int64_t features) {
  return tiles_at<In>(tile_level(features));
}

// For tests: while it lives, every thread's tiles are of this level, which the processor must have,
// or those of bf16 are of this table.
class ForcedTiles {
 public:
  explicit ForcedTiles(Level level);
  explicit ForcedTiles(const TileKernels<bfloat16>& table);
  ~ForcedTiles();
  ForcedTiles(const ForcedTiles&) = delete;
  ForcedTiles& operator=(const ForcedTiles&) = delete;
};

}  // namespace weft::cpu
