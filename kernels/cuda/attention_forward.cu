// The forward pass of fused attention (Dao 2023): a block takes 64 queries of a head, a warp 16 of
// them; over tiles of 64 keys it keeps a running maximum, sum and output. The next keys are on
// their way while the weights meet the values, and the values while queries meet keys. The
// numerical policy stands in attention.h; the softmax's sums are over undropped weights.
#include <type_traits>

#include "kernels/cuda/attention_softmax.cuh"
#include "kernels/cuda/mma.cuh"

namespace weft::cuda {
namespace {

template <typename T>
struct ForwardArguments {
  Attention attention;
  AttentionHeads<const T> q, k, v;
  ForwardResults<T> results;
};

// Where a block stands.
struct Place {
  int64_t row, head, first_query;
  TokenRange queries;
};

__device__ inline int64_t next_keys(const Attention& a, const Place& place, int64_t from,
                                    TileView& seen) {
  for (int64_t key = from; key < a.shape.keys; key += kTileTokens) {
    seen = view<kTileTokens>(a.rules, place.queries,
                             range_of<kTileTokens>(a.ranges.keys, place.row, a.shape.keys, key));
    if (seen != TileView::kNone) return key;
  }
  return a.shape.keys;
}

// Floats: two blocks at a time, with all the registers that this leaves them; else ptxas goes for
// three and spills.
template <int kWidth, typename T>
__global__ void __launch_bounds__(kAttentionThreads, std::is_same_v<T, float> ? 2 : 0)
    forward_kernel(const __grid_constant__ ForwardArguments<T> arguments) {
  constexpr int kRowPitch = kPitch<T, kWidth>, kTile = kTileTokens * kRowPitch;
  const Attention& a = arguments.attention;
  const AttentionShape& shape = a.shape;
  T* queries = shared_memory<T>();
  T *keys = queries + kTile, *values = keys + kTile;
  const int64_t tiles = (shape.queries + kTileTokens - 1) / kTileTokens;
  const int64_t item = blockIdx.x, tile = tiles - 1 - item % tiles;  // causal: the longest first
  Place place{item / tiles / shape.heads, item / tiles % shape.heads, tile * kTileTokens, {}};
  place.queries =
      range_of<kTileTokens>(a.ranges.queries, place.row, shape.queries, place.first_query);
  const int64_t key_head = place.head / (shape.heads / shape.key_heads);
  const TokenRows<const T> k = rows_of(arguments.k, place.row, key_head);
  const TokenRows<const T> v = rows_of(arguments.v, place.row, key_head);
  load_tile<kTileTokens, kWidth>(queries, rows_of(arguments.q, place.row, place.head),
                                 place.first_query, shape.queries, shape.width, a.aligned);
  TileView seen = TileView::kNone;
  int64_t key = next_keys(a, place, 0, seen);
  load_tile<kTileTokens, kWidth>(keys, k, key, shape.keys, shape.width, a.aligned);
  copies_commit();

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const T* own_queries = queries + warp * 16 * kRowPitch;
  const int64_t first_query = place.first_query + 16 * warp;
  float out[kWidth / 8][4];
  clear(out);
  RunningRows rows;
  while (key < shape.keys) {
    copies_wait<0>();
    __syncthreads();  // the keys are there, and all are done with the last values
    load_tile<kTileTokens, kWidth>(values, v, key, shape.keys, shape.value_width, a.aligned);
    copies_commit();
    float scores[kTileTokens / 8][4];
    clear(scores);
    add_product_transposed<kWidth>(scores, own_queries, keys, kRowPitch);
    float keep[2];
    softmax_step<T, false>(a, {place.row, place.head, first_query + lane / 4, key},
                           seen == TileView::kSome, scores, rows, keep);
    shrink(out, keep);
    copies_wait<0>();
    __syncthreads();  // the values are there, and all are done with the keys
    key = next_keys(a, place, key + kTileTokens, seen);
    if (key < shape.keys) {
      load_tile<kTileTokens, kWidth>(keys, k, key, shape.keys, shape.width, a.aligned);
      copies_commit();
    }
    add_product<T>(out, scores, values, kRowPitch);
  }
  copies_wait<0>();  // of a block that sees no key
  finish(a, arguments.results, {place.row, place.head, first_query, 0}, rows, out);
}

template <typename T>
struct ForwardLaunch {
  const ForwardArguments<T>& arguments;
  cudaStream_t stream;
  template <int kWidth>
  void run() const {
    const AttentionShape& shape = arguments.attention.shape;
    const int64_t tiles = (shape.queries + kTileTokens - 1) / kTileTokens;
    constexpr size_t kBytes = 3 * kTileTokens * kPitch<T, kWidth> * sizeof(T);
    launch_shared(stream, static_cast<unsigned>(shape.rows * shape.heads * tiles),
                  kAttentionThreads, kBytes, forward_kernel<kWidth, T>, arguments);
  }
};

}  // namespace

template <typename T>
void attention_forward(const AttentionShape& shape, const AttentionRules& rules,
                       AttentionHeads<const T> q, AttentionHeads<const T> k,
                       AttentionHeads<const T> v, AttentionResult<T> out, float* log_sum_exp,
                       void* scratch, cudaStream_t stream) {
  check_attention(shape, rules);
  if (shape.rows == 0 || shape.heads == 0 || shape.queries == 0) return;
  const bool aligned = rows_aligned(q) && rows_aligned(k) && rows_aligned(v);
  const Attention attention =
      attention_of(shape, rules, make_ranges(shape, rules, scratch, stream), aligned);
  const ForwardArguments<T> arguments{attention, q, k, v, {out, log_sum_exp}};
  with_width(shape.widest(), ForwardLaunch<T>{arguments, stream});
}

#define WEFT_INSTANTIATE(T)                                                                      \
  template void attention_forward<T>(const AttentionShape&, const AttentionRules&,               \
                                     AttentionHeads<const T>, AttentionHeads<const T>,           \
                                     AttentionHeads<const T>, AttentionResult<T>, float*, void*, \
                                     cudaStream_t);
WEFT_INSTANTIATE(float)
WEFT_INSTANTIATE(bfloat16)
WEFT_INSTANTIATE(float16)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
