// Who sees whom, what a score becomes, and which weights are dropped; internal to the attention
// kernels.
//
// A token's range is that of the kRangeTokens tokens around it; attention_ranges.cu makes them once
// a call, so that tiles which nobody sees are skipped and tiles which all see are not masked. Where
// tokens stand at their indices and all count, there are no tables: ranges are computed.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/philox.cuh"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {

constexpr int kRangeTokens = 32;
constexpr int kTileTokens = 64;  // queries, or keys, of a block: 16 a warp
constexpr int kAttentionThreads = 128;
constexpr float kLog2e = 1.4426950408889634F, kLn2 = 0.6931471805599453F;

struct TokenRange {
  int64_t position_least, position_most, document_least, document_most;
  int64_t valid;  // how many tokens count
};

struct RangeTables {
  const TokenRange *queries, *keys;  // [rows, tokens / kRangeTokens, rounded up]; or both null
};

// Whether a query sees a key is a matter of their indices alone.
inline bool seen_by_index(const AttentionRules& rules) {
  return rules.query_position == nullptr && rules.key_position == nullptr &&
         rules.key_valid == nullptr && rules.query_document == nullptr &&
         rules.mask.data == nullptr;
}
inline int64_t ranges_of(int64_t tokens) { return (tokens + kRangeTokens - 1) / kRangeTokens; }
// Fills scratch (attention_scratch_bytes) on the stream; null tables if seen_by_index.
RangeTables make_ranges(const AttentionShape& shape, const AttentionRules& rules, void* scratch,
                        cudaStream_t stream);

// The constants of a call, as kernels take them.
struct Attention {
  AttentionShape shape;
  AttentionRules rules;
  RangeTables ranges;
  float scale, scale_log2, soft_cap, drop_scale;
  int dropped;  // of the values of 16 bits (DropRule)
  bool bends;   // a score is more than a scaled product
  bool drops;
  bool by_index;  // seen_by_index
  bool aligned;   // rows of q, k, v and their gradients are multiples of 16 bytes
};

// Nothing bends a score or drops a weight, and scores grow with their products.
inline bool is_plain(const AttentionRules& rules) {
  return rules.scale > 0 && !(rules.soft_cap > 0) && rules.alibi_slopes == nullptr &&
         rules.bias.data == nullptr && rules.distance_bias == nullptr && !(rules.dropout_rate > 0);
}
void check_attention(const AttentionShape& shape, const AttentionRules& rules);
Attention attention_of(const AttentionShape& shape, const AttentionRules& rules,
                       const RangeTables& ranges, bool aligned);

enum class TileView { kNone, kSome, kAll };

__device__ inline void widen_range(TokenRange& range, const TokenRange& other) {
  range.position_least = min(range.position_least, other.position_least);
  range.position_most = max(range.position_most, other.position_most);
  range.document_least = min(range.document_least, other.document_least);
  range.document_most = max(range.document_most, other.document_most);
  range.valid += other.valid;
}

// Of kTokens tokens from `first`, a multiple of kRangeTokens, on.
template <int kTokens>
__device__ TokenRange range_of(const TokenRange* table, int64_t row, int64_t tokens,
                               int64_t first) {
  if (table == nullptr) {
    const int64_t past = min(first + kTokens, tokens);
    return {first, past - 1, 0, 0, past - first};
  }
  const int64_t ranges = (tokens + kRangeTokens - 1) / kRangeTokens;
  const TokenRange* at = table + row * ranges + first / kRangeTokens;
  TokenRange range = at[0];
  WEFT_UNROLL
  for (int i = 1; i < kTokens / kRangeTokens; ++i) {
    if (first + i * kRangeTokens < tokens) widen_range(range, at[i]);
  }
  return range;
}

// What queries of one range see of kKeys keys of another.
template <int kKeys>
__device__ TileView view(const AttentionRules& rules, const TokenRange& query,
                         const TokenRange& key) {
  if (key.valid == 0) return TileView::kNone;
  bool all = key.valid == kKeys && rules.mask.data == nullptr;
  if (rules.causal) {
    if (key.position_least > query.position_most) return TileView::kNone;
    all = all && key.position_most <= query.position_least;
  }
  if (rules.window_right >= 0) {
    if (key.position_least > query.position_most + rules.window_right) return TileView::kNone;
    all = all && key.position_most <= query.position_least + rules.window_right;
  }
  if (rules.window_left >= 0) {
    if (key.position_most < query.position_least - rules.window_left) return TileView::kNone;
    all = all && key.position_least >= query.position_most - rules.window_left;
  }
  if (rules.query_document != nullptr) {
    if (key.document_least > query.document_most || key.document_most < query.document_least) {
      return TileView::kNone;
    }
    all = all && key.document_least == key.document_most &&
          query.document_least == query.document_most && key.document_least == query.document_least;
  }
  return all ? TileView::kAll : TileView::kSome;
}

__device__ inline int64_t position_at(const int64_t* positions, int64_t row, int64_t tokens,
                                      int64_t token) {
  return positions == nullptr ? token : positions[row * tokens + token];
}

// A place in the score matrix of one head of one row.
struct ScorePlace {
  int64_t row, head;
  int64_t query, key;
};

template <typename T>
__device__ int64_t place_in(const ScoreTable<T>& table, const ScorePlace& at) {
  return at.row * table.row_step + at.head * table.head_step + at.query * table.query_step +
         at.key * table.key_step;
}

// What the rules ask of a query or a key.
struct Token {
  int64_t position, document;
  bool there;
};
__device__ inline Token query_token(const Attention& a, int64_t row, int64_t query) {
  const AttentionRules& rules = a.rules;
  if (query >= a.shape.queries) return {0, 0, false};
  const int64_t at = row * a.shape.queries + query;
  return {rules.query_position == nullptr ? query : rules.query_position[at],
          rules.query_document == nullptr ? 0 : rules.query_document[at], true};
}
__device__ inline Token key_token(const Attention& a, int64_t row, int64_t key) {
  const AttentionRules& rules = a.rules;
  if (key >= a.shape.keys) return {0, 0, false};
  const int64_t at = row * a.shape.keys + key;
  return {rules.key_position == nullptr ? key : rules.key_position[at],
          rules.key_document == nullptr ? 0 : rules.key_document[at],
          rules.key_valid == nullptr || rules.key_valid[at] != 0};
}
// By all rules but the mask.
__device__ inline bool sees(const AttentionRules& rules, const Token& query, const Token& key) {
  const int64_t ahead = key.position - query.position;
  return query.there && key.there && query.document == key.document &&
         !(rules.causal && ahead > 0) && !(rules.window_right >= 0 && ahead > rules.window_right) &&
         !(rules.window_left >= 0 && -ahead > rules.window_left);
}
__device__ inline bool unmasked(const AttentionRules& rules, const ScorePlace& at) {
  return rules.mask.data == nullptr || rules.mask.data[place_in(rules.mask, at)] != 0;
}

// Columns of the score matrix, counted from one of them on.
struct Columns {
  int first, past;
};
// Which ones, counted from `column` on, belong to the row if seen_by_index. Rows are queries and
// columns keys or, transposed, the other way round; both are below 2^31.
template <bool kTransposed>
__device__ Columns columns_of(const Attention& a, int row, int column) {
  const int64_t rows = kTransposed ? a.shape.keys : a.shape.queries;
  const int64_t columns = kTransposed ? a.shape.queries : a.shape.keys;
  const int64_t left = a.rules.window_left, right = a.rules.causal ? 0 : a.rules.window_right;
  const int64_t before = kTransposed ? right : left, behind = kTransposed ? left : right;
  if (row >= rows) return {0, 0};
  const int64_t first = before < 0 ? 0 : max(row - before, int64_t{0});
  const int64_t past = behind < 0 ? columns : min(row + min(behind, columns) + 1, columns);
  return {static_cast<int>(first - column), static_cast<int>(past - column)};
}
template <bool kTransposed, int kTiles>
__device__ void hide_by_index(const Attention& a, int row, int column, float (&scores)[kTiles][4]) {
  WEFT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const Columns seen = columns_of<kTransposed>(a, row + 8 * half, column);
    WEFT_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) {
      const int at = i / 2 * 8 + i % 2;
      float& score = scores[i / 2][2 * half + i % 2];
      score = at >= seen.first && at < seen.past ? score : -INFINITY;
    }
  }
}

// Scores that are not visible become -infinity. Of accumulators (ptx.cuh) with queries as rows and
// keys as columns, or, transposed, the other way round; first: the thread's first row and column,
// below 2^31.
template <bool kTransposed, int kTiles>
__device__ void hide(const Attention& a, const ScorePlace& first, float (&scores)[kTiles][4]) {
  const auto token = [&](bool of_keys, int64_t index) {
    return of_keys ? key_token(a, first.row, index) : query_token(a, first.row, index);
  };
  const auto row = static_cast<int>(kTransposed ? first.key : first.query);
  const auto column = static_cast<int>(kTransposed ? first.query : first.key);
  if (a.by_index) return hide_by_index<kTransposed>(a, row, column, scores);
  static_assert(2 * kTiles <= 32);
  WEFT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const Token own = token(kTransposed, row + 8 * half);
    uint32_t hidden = 0;  // a bit a column
    WEFT_ROLLED
    for (int i = 0; i < 2 * kTiles; ++i) {
      int index = column + i / 2 * 8 + i % 2;
      forget_origin(index);  // registers are short here
      const Token other = token(!kTransposed, index);
      const ScorePlace at{first.row, first.head, kTransposed ? index : row + 8 * half,
                          kTransposed ? row + 8 * half : index};
      const bool seen = sees(a.rules, kTransposed ? other : own, kTransposed ? own : other);
      if (!seen || !unmasked(a.rules, at)) hidden |= 1U << i;
    }
    WEFT_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) {
      float& score = scores[i / 2][2 * half + i % 2];
      score = (hidden >> i & 1) == 0 ? score : -INFINITY;
    }
  }
}

// The functions below are called for each score: what is seldom needed is not inlined.
__device__ __noinline__ inline bool is_visible(const Attention& a, const ScorePlace& at) {
  return sees(a.rules, query_token(a, at.row, at.query), key_token(a, at.row, at.key)) &&
         unmasked(a.rules, at);
}

struct Score {
  float value;  // in units of log2(e)
  float slope;  // of the score by the scaled product: 1 but where a soft cap bends it
};
template <typename T>
__device__ __noinline__ Score bent_score(const Attention& a, const ScorePlace& at, float product) {
  Score score{product * a.scale, 1.0F};
  if (a.soft_cap > 0.0F) {
    const float bent = tanhf(score.value / a.soft_cap);
    score = {a.soft_cap * bent, 1.0F - bent * bent};
  }
  const bool exists = at.query < a.shape.queries && at.key < a.shape.keys;
  if ((a.rules.alibi_slopes != nullptr || a.rules.distance_bias != nullptr) && exists) {
    const int64_t ahead = position_at(a.rules.key_position, at.row, a.shape.keys, at.key) -
                          position_at(a.rules.query_position, at.row, a.shape.queries, at.query);
    if (a.rules.alibi_slopes != nullptr) {
      score.value -= a.rules.alibi_slopes[at.head] * fabsf(static_cast<float>(ahead));
    }
    if (a.rules.distance_bias != nullptr) {
      const int64_t reach = a.rules.distance_reach, middle = at.head * (2 * reach + 1) + reach;
      const T* table = static_cast<const T*>(a.rules.distance_bias);
      if (a.rules.distance_rows <= a.shape.rows) {
        table += at.row / a.rules.distance_rows * a.shape.heads * (2 * reach + 1);
      }
      score.value += widen(table[middle + max(-reach, min(ahead, reach))]);
    }
  }
  if (a.rules.bias.data != nullptr && exists) {
    score.value += widen(static_cast<const T*>(a.rules.bias.data)[place_in(a.rules.bias, at)]);
    if (score.value < kLeastScore && score.value != -INFINITY) score.value = kLeastScore;
  }
  score.value *= kLog2e;
  return score;
}
template <typename T>
__device__ Score score_of(const Attention& a, const ScorePlace& at, float product) {
  if (a.bends) return bent_score<T>(a, at, product);
  return {product * a.scale_log2, 1.0F};
}

// The factor of a weight: 0 where it is dropped.
__device__ __noinline__ inline float drop_factor(const Attention& a, const ScorePlace& at) {
  const AttentionRules& rules = a.rules;
  if (at.query >= a.shape.queries || at.key >= a.shape.keys) return 0.0F;
  const int64_t query =
      rules.query_index == nullptr ? rules.first_query + at.query : rules.query_index[at.query];
  const int64_t key =
      rules.key_index == nullptr ? rules.first_key + at.key : rules.key_index[at.key];
  const int64_t row =
      ((rules.first_row + at.row) * rules.dropout_heads + rules.first_head + at.head) *
          rules.dropout_queries +
      query;
  const auto index = static_cast<uint64_t>(row * rules.dropout_keys + key);
  const PhiloxWords words = (words_of)(rules.dropout_key, index / 8);
  return kept_in(words, index, a.dropped) ? a.drop_scale : 0.0F;
}

}  // namespace weft::cuda
