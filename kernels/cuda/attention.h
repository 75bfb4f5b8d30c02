// Fused scaled dot-product attention, forward and backward, on tensor cores: the meaning of
// kernels/attention/attention.h. T is float, bfloat16 or float16. Heads are up to kAttentionWidth
// wide; those of 32, 64, 80, 96 and 128 are computed without filling up, and narrower values as if
// they were as wide as keys (or the other way round). Instantiated for the three types.
//
// Numerical policy: products of half-width elements with fp32 sums; floats as three products of
// their 10-bit parts (about fp32's accuracy); scores, weights and statistics in fp32, weights and
// score gradients rounded to T as operands of the next product. Backward recomputes the scores
// twice (for a bias, and for one by distance, once more) instead of adding into shared sums: no
// atomics, the same bits every time.
//
// Thread safety: any thread, each with its own stream. Ownership: as kernels.h.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>

#include "kernels/cuda/device_key.h"
#include "kernels/tensor/half.h"

namespace weft::cuda {

constexpr int kAttentionWidth = 128;
constexpr float kLeastScore = -0x1p14F;  // attention::kLeastScore

struct AttentionShape {
  int64_t rows = 0, heads = 0, key_heads = 0;  // heads is a multiple of key_heads
  int64_t queries = 0, keys = 0;
  int width = 0;        // of a query and a key; 1 to kAttentionWidth
  int value_width = 0;  // of a value and an output; 1 to kAttentionWidth
  __host__ __device__ int widest() const { return width > value_width ? width : value_width; }
};

// Element (row, head, token, feature) lies at data[row * row_step + head * head_step +
// token * token_step + feature].
template <typename T>
struct AttentionHeads {
  T* data = nullptr;
  int64_t row_step = 0, head_step = 0, token_step = 0;
};

// A number for each score: of (row, head, query, key) at data[row * row_step + head * head_step +
// query * query_step + key * key_step]; steps of 0 where several share it.
template <typename T>
struct ScoreTable {
  const T* data = nullptr;
  int64_t row_step = 0, head_step = 0, query_step = 0, key_step = 0;
};

// Visibility and dropout as attention::Parameters names them; pointers to device memory, or null.
struct AttentionRules {
  double scale = 1, soft_cap = 0;
  const float* alibi_slopes = nullptr;  // [heads]
  bool causal = false;
  int64_t window_left = -1, window_right = -1;
  const int64_t *query_position = nullptr,
                *key_position = nullptr;  // [rows, queries], [rows, keys]
  const uint8_t* key_valid = nullptr;     // [rows, keys]
  const int64_t *query_document = nullptr, *key_document = nullptr;
  ScoreTable<uint8_t> mask;             // 0 hides
  ScoreTable<void> bias;                // of q's type
  const void* distance_bias = nullptr;  // [groups, heads, 2 distance_reach + 1], of q's type
  int64_t distance_reach = 0;
  // Of a group, one group's behind the other's; more than there are: all have one table.
  int64_t distance_rows = std::numeric_limits<int64_t>::max();
  const void* sinks = nullptr;  // [heads], of q's type
  double dropout_rate = 0;
  DeviceKey dropout_key;
  int64_t dropout_heads = 0, dropout_queries = 0, dropout_keys = 0;  // global extents
  int64_t first_row = 0, first_head = 0, first_query = 0, first_key = 0;
  // [queries], [keys]: where each token stands in the whole, instead of from first_* on.
  const int64_t *query_index = nullptr, *key_index = nullptr;
};

// Bytes of device memory that each call below needs as scratch, aligned to 16.
int64_t attention_scratch_bytes(const AttentionShape& shape);

// Where results go: in T, or, for the partial results of ring attention, in fp32.
template <typename T>
struct AttentionResult {
  AttentionHeads<T> narrow;
  AttentionHeads<float> wide;  // instead, where its data is not null
};

// log_sum_exp [rows, heads, queries], contiguous; -infinity where a query sees nothing.
template <typename T>
void attention_forward(const AttentionShape& shape, const AttentionRules& rules,
                       AttentionHeads<const T> q, AttentionHeads<const T> k,
                       AttentionHeads<const T> v, AttentionResult<T> out, float* log_sum_exp,
                       void* scratch, cudaStream_t stream);

// The same with the warp-group products and bulk copies of sm_90a, for that device alone. T is
// bfloat16 or float16. False, and nothing is done, for what it does not take: biases, soft caps,
// slopes, dropout, scales that are not above 0, rows that are not multiples of 16 bytes.
template <typename T>
bool attention_forward_sm90(const AttentionShape& shape, const AttentionRules& rules,
                            AttentionHeads<const T> q, AttentionHeads<const T> k,
                            AttentionHeads<const T> v, AttentionResult<T> out, float* log_sum_exp,
                            void* scratch, cudaStream_t stream);

// delta = the sum over features of out * d_out, [rows, heads, queries].
template <typename T>
void attention_delta(const AttentionShape& shape, AttentionHeads<const T> out,
                     AttentionHeads<const T> d_out, float* delta, cudaStream_t stream);

// dq, dk, dv are overwritten.
template <typename T>
void attention_backward(const AttentionShape& shape, const AttentionRules& rules,
                        AttentionHeads<const T> q, AttentionHeads<const T> k,
                        AttentionHeads<const T> v, AttentionHeads<const T> d_out,
                        const float* log_sum_exp, const float* delta, AttentionResult<T> dq,
                        AttentionResult<T> dk, AttentionResult<T> dv, void* scratch,
                        cudaStream_t stream);

// The same by sm_90a, as attention_forward_sm90.
template <typename T>
bool attention_backward_sm90(const AttentionShape& shape, const AttentionRules& rules,
                             AttentionHeads<const T> q, AttentionHeads<const T> k,
                             AttentionHeads<const T> v, AttentionHeads<const T> d_out,
                             const float* log_sum_exp, const float* delta, AttentionResult<T> dq,
                             AttentionResult<T> dk, AttentionResult<T> dv, void* scratch,
                             cudaStream_t stream);

// The gradient of rules.bias: d_bias [rows, heads, queries, keys], contiguous; shared.rows
// (.heads): one for all rows (heads), summed in their order. Overwritten.
struct BiasSharing {
  bool rows = false, heads = false;
};
template <typename T>
void attention_bias_gradient(const AttentionShape& shape, const AttentionRules& rules,
                             AttentionHeads<const T> q, AttentionHeads<const T> k,
                             AttentionHeads<const T> v, AttentionHeads<const T> d_out,
                             const float* log_sum_exp, const float* delta, BiasSharing shared,
                             T* d_bias, void* scratch, cudaStream_t stream);

// The gradient of rules.distance_bias, in fp32. Overwritten. Of groups each one's has the bits that
// it would have alone. scratch: so many bytes.
int64_t attention_distance_scratch_bytes(const AttentionShape& shape, const AttentionRules& rules);
template <typename T>
void attention_distance_gradient(const AttentionShape& shape, const AttentionRules& rules,
                                 AttentionHeads<const T> q, AttentionHeads<const T> k,
                                 AttentionHeads<const T> v, AttentionHeads<const T> d_out,
                                 const float* log_sum_exp, const float* delta, float* d_table,
                                 void* scratch, cudaStream_t stream);

// The gradient of rules.sinks, [heads]: minus the sum over rows and queries of
// exp(sink - log_sum_exp) delta. Overwritten.
template <typename T>
void attention_sinks_gradient(const AttentionShape& shape, const AttentionRules& rules,
                              const float* log_sum_exp, const float* delta, T* d_sinks,
                              cudaStream_t stream);

}  // namespace weft::cuda
