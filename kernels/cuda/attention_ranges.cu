// The ranges of positions and documents of kRangeTokens tokens each, a warp a range. Integers only.
#include "kernels/cuda/attention_rules.cuh"
#include "kernels/cuda/block_reduce.cuh"

namespace weft::cuda {
namespace {

struct Least {
  __device__ static int64_t combine(int64_t a, int64_t b) { return a < b ? a : b; }
};
struct Most {
  __device__ static int64_t combine(int64_t a, int64_t b) { return a < b ? b : a; }
};
struct Count {
  __device__ static int64_t combine(int64_t a, int64_t b) { return a + b; }
};

// Tokens that do not count leave the range as it is.
__global__ void ranges_kernel(const int64_t* position, const int64_t* document,
                              const uint8_t* valid, int64_t tokens, int64_t ranges, int64_t count,
                              TokenRange* out) {
  for (int64_t i = blockIdx.x; i < count; i += gridDim.x) {
    const int64_t row = i / ranges, token = i % ranges * kRangeTokens + threadIdx.x;
    const int64_t at = row * tokens + token;
    const bool counts = token < tokens && (valid == nullptr || valid[at] != 0);
    const int64_t own_position = !counts ? 0 : position == nullptr ? token : position[at];
    const int64_t own_document = counts && document != nullptr ? document[at] : 0;
    TokenRange range;
    range.position_least = warp_reduce<Least>(counts ? own_position : INT64_MAX);
    range.position_most = warp_reduce<Most>(counts ? own_position : INT64_MIN);
    range.document_least = warp_reduce<Least>(counts ? own_document : INT64_MAX);
    range.document_most = warp_reduce<Most>(counts ? own_document : INT64_MIN);
    range.valid = warp_reduce<Count>(static_cast<int64_t>(counts));
    if (threadIdx.x == 0) out[i] = range;
  }
}

}  // namespace

int64_t attention_scratch_bytes(const AttentionShape& shape) {
  return shape.rows * (ranges_of(shape.queries) + ranges_of(shape.keys)) *
         static_cast<int64_t>(sizeof(TokenRange));
}

void check_attention(const AttentionShape& shape, const AttentionRules& rules) {
  check_arguments(shape.width > 0 && shape.value_width > 0 && shape.widest() <= kAttentionWidth,
                  "attention: widths of heads in [1, kAttentionWidth]");
  check_arguments(shape.heads == 0 || (shape.key_heads > 0 && shape.heads % shape.key_heads == 0),
                  "attention: heads a multiple of key_heads");
  check_arguments((rules.query_document == nullptr) == (rules.key_document == nullptr),
                  "attention: documents of queries and of keys together");
  check_arguments(rules.dropout_rate >= 0 && rules.dropout_rate < 1,
                  "attention: a dropout rate in [0, 1)");
}

Attention attention_of(const AttentionShape& shape, const AttentionRules& rules,
                       const RangeTables& ranges, bool aligned) {
  Attention attention;
  attention.shape = shape;
  attention.rules = rules;
  attention.ranges = ranges;
  attention.scale = static_cast<float>(rules.scale);
  attention.scale_log2 = static_cast<float>(rules.scale * static_cast<double>(kLog2e));
  attention.bends = rules.soft_cap > 0 || rules.alibi_slopes != nullptr ||
                    rules.bias.data != nullptr || rules.distance_bias != nullptr;
  attention.soft_cap = static_cast<float>(rules.soft_cap);
  const DropRule dropout(rules.dropout_rate);
  attention.dropped = dropout.dropped;
  attention.drop_scale = static_cast<float>(dropout.factor);
  attention.drops = rules.dropout_rate > 0;
  attention.by_index = seen_by_index(rules);
  attention.aligned = aligned;
  return attention;
}

RangeTables make_ranges(const AttentionShape& shape, const AttentionRules& rules, void* scratch,
                        cudaStream_t stream) {
  if (seen_by_index(rules)) return {nullptr, nullptr};
  auto* queries = static_cast<TokenRange*>(scratch);
  const int64_t of_queries = ranges_of(shape.queries), of_keys = ranges_of(shape.keys);
  TokenRange* keys = queries + shape.rows * of_queries;
  launch(stream, blocks_of(shape.rows * of_queries, 1), kRangeTokens, ranges_kernel,
         rules.query_position, rules.query_document, static_cast<const uint8_t*>(nullptr),
         shape.queries, of_queries, shape.rows * of_queries, queries);
  launch(stream, blocks_of(shape.rows * of_keys, 1), kRangeTokens, ranges_kernel,
         rules.key_position, rules.key_document, rules.key_valid, shape.keys, of_keys,
         shape.rows * of_keys, keys);
  return {queries, keys};
}

}  // namespace weft::cuda
