// The gradient of attention's bias: a block takes 64 queries by 64 keys of it, a warp 16 of the
// queries, and walks over the rows and heads that share it, summing the gradients of their scores
// in registers. And that of the sinks: a block a head. The numerical policy stands in attention.h.
#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/mma.cuh"

namespace weft::cuda {
namespace {

template <typename T>
struct BiasArguments {
  BackwardArguments<T> backward;
  BiasSharing shared;
  T* d_bias;
};

template <int kWidth, typename T>
struct BiasTiles {
  static constexpr int kRowPitch = kPitch<T, kWidth>, kTile = kTileTokens * kRowPitch;
  static constexpr size_t kBytes = 4 * kTile * sizeof(T);
  T *queries, *d_out, *keys, *values;
};

// What a row and head add to a warp's 16 queries of the tile.
template <typename T, int kTiles>
__device__ void add_gradients(const BackwardArguments<T>& arguments, ScorePlace at, bool masked,
                              float (&products)[kTiles][4], float (&gradients)[kTiles][4],
                              float (&sums)[kTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t first_query = at.query, first_key = at.key + 2 * (lane % 4);
  WEFT_UNROLL
  for (int half = 0; half < 2; ++half) {
    at.query = first_query + 8 * half;
    const QuerySums of_query = query_sums(arguments, at.row, at.head, at.query);
    WEFT_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) {
      const int tile = i / 2, element = 2 * half + i % 2;
      at.key = first_key + 8 * tile + i % 2;
      weigh<T>(arguments.attention, at, masked, of_query, products[tile][element],
               gradients[tile][element]);
      sums[tile][element] += gradients[tile][element];
    }
  }
}

template <int kWidth, typename T>
__global__ void __launch_bounds__(kAttentionThreads)
    bias_kernel(const __grid_constant__ BiasArguments<T> call) {
  using Tiles = BiasTiles<kWidth, T>;
  constexpr int kRowPitch = Tiles::kRowPitch;
  const BackwardArguments<T>& arguments = call.backward;
  const Attention& a = arguments.attention;
  const AttentionShape& shape = a.shape;
  T* first = shared_memory<T>();
  const Tiles t{first, first + Tiles::kTile, first + 2 * Tiles::kTile, first + 3 * Tiles::kTile};
  const int64_t query_tiles = (shape.queries + kTileTokens - 1) / kTileTokens;
  const int64_t key_tiles = (shape.keys + kTileTokens - 1) / kTileTokens;
  const int64_t item = blockIdx.x, slot = item / key_tiles / query_tiles;
  const int64_t first_key = item % key_tiles * kTileTokens;
  const int64_t first_query = item / key_tiles % query_tiles * kTileTokens;
  const int64_t slot_heads = call.shared.heads ? 1 : shape.heads;
  const int64_t first_row = call.shared.rows ? 0 : slot / slot_heads;
  const int64_t first_head = call.shared.heads ? 0 : slot % slot_heads;
  const int64_t last_row = call.shared.rows ? shape.rows : first_row + 1;
  const int64_t last_head = call.shared.heads ? shape.heads : first_head + 1;
  const auto load = [&](T* tile, const TokenRows<const T>& from, int64_t token, int64_t tokens,
                        int width) {
    load_tile<kTileTokens, kWidth>(tile, from, token, tokens, width, a.aligned);
  };

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t own_query = first_query + 16 * warp + lane / 4;
  float sums[kTileTokens / 8][4];
  clear(sums);
  for (int64_t row = first_row; row < last_row; ++row) {
    const TileView seen = view<kTileTokens>(
        a.rules, range_of<kTileTokens>(a.ranges.queries, row, shape.queries, first_query),
        range_of<kTileTokens>(a.ranges.keys, row, shape.keys, first_key));
    if (seen == TileView::kNone) continue;
    for (int64_t head = first_head; head < last_head; ++head) {
      const int64_t key_head = head / (shape.heads / shape.key_heads);
      load(t.queries, rows_of(arguments.q, row, head), first_query, shape.queries, shape.width);
      load(t.keys, rows_of(arguments.k, row, key_head), first_key, shape.keys, shape.width);
      load(t.d_out, rows_of(arguments.d_out, row, head), first_query, shape.queries,
           shape.value_width);
      load(t.values, rows_of(arguments.v, row, key_head), first_key, shape.keys, shape.value_width);
      copies_commit();
      copies_wait<0>();
      __syncthreads();  // the four tiles are there
      float products[kTileTokens / 8][4], gradients[kTileTokens / 8][4];
      clear(products);
      clear(gradients);
      add_product_transposed<kWidth>(products, t.queries + 16 * warp * kRowPitch, t.keys,
                                     kRowPitch);
      add_product_transposed<kWidth>(gradients, t.d_out + 16 * warp * kRowPitch, t.values,
                                     kRowPitch);
      add_gradients(arguments, {row, head, own_query, first_key}, seen == TileView::kSome, products,
                    gradients, sums);
      __syncthreads();  // all are done with the tiles
    }
  }
  const float plain[2] = {1.0F, 1.0F};
  const int64_t keys_left = shape.keys - first_key;
  T* to = call.d_bias + slot * shape.queries * shape.keys + first_key;
  store_rows(sums, plain, TokenRows<T>{to, shape.keys}, first_query + 16 * warp, shape.queries,
             static_cast<int>(keys_left < kTileTokens ? keys_left : kTileTokens));
}

template <typename T>
struct BiasLaunch {
  const BiasArguments<T>& call;
  cudaStream_t stream;
  template <int kWidth>
  void run() const {
    const AttentionShape& shape = call.backward.attention.shape;
    const int64_t tiles = ((shape.queries + kTileTokens - 1) / kTileTokens) *
                          ((shape.keys + kTileTokens - 1) / kTileTokens);
    const int64_t slots =
        (call.shared.rows ? 1 : shape.rows) * (call.shared.heads ? 1 : shape.heads);
    launch_shared(stream, static_cast<unsigned>(slots * tiles), kAttentionThreads,
                  BiasTiles<kWidth, T>::kBytes, bias_kernel<kWidth, T>, call);
  }
};

template <typename T>
__global__ void sinks_kernel(AttentionShape shape, const T* sinks, const float* log_sum_exp,
                             const float* delta, T* d_sinks) {
  float* partials = shared_memory<float>();
  const int64_t head = blockIdx.x, count = shape.rows * shape.queries;
  const float sink = widen(sinks[head]);
  float total = 0.0F;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const int64_t row = i / shape.queries;
    const int64_t at = (row * shape.heads + head) * shape.queries + i % shape.queries;
    const float lse = log_sum_exp[at];
    if (lse != -INFINITY) total -= expf(sink - lse) * delta[at];
  }
  total = block_reduce<Add>(total, partials);
  if (threadIdx.x == 0) d_sinks[head] = narrow<T>(total);
}

}  // namespace

template <typename T>
void attention_bias_gradient(const AttentionShape& shape, const AttentionRules& rules,
                             AttentionHeads<const T> q, AttentionHeads<const T> k,
                             AttentionHeads<const T> v, AttentionHeads<const T> d_out,
                             const float* log_sum_exp, const float* delta, BiasSharing shared,
                             T* d_bias, void* scratch, cudaStream_t stream) {
  check_attention(shape, rules);
  const bool aligned = rows_aligned(q) && rows_aligned(k) && rows_aligned(v) && rows_aligned(d_out);
  const RangeTables ranges = make_ranges(shape, rules, scratch, stream);
  const BiasArguments<T> call{
      {attention_of(shape, rules, ranges, aligned), q, k, v, d_out, log_sum_exp, delta, {}, {}, {}},
      shared,
      d_bias};
  with_width(shape.widest(), BiasLaunch<T>{call, stream});
}

template <typename T>
void attention_sinks_gradient(const AttentionShape& shape, const AttentionRules& rules,
                              const float* log_sum_exp, const float* delta, T* d_sinks,
                              cudaStream_t stream) {
  launch_shared(stream, static_cast<unsigned>(shape.heads), kThreads, kWarp * sizeof(float),
                sinks_kernel<T>, shape, static_cast<const T*>(rules.sinks), log_sum_exp, delta,
                d_sinks);
}

#define WEFT_INSTANTIATE(T)                                                                    \
  template void attention_bias_gradient<T>(                                                    \
      const AttentionShape&, const AttentionRules&, AttentionHeads<const T>,                   \
      AttentionHeads<const T>, AttentionHeads<const T>, AttentionHeads<const T>, const float*, \
      const float*, BiasSharing, T*, void*, cudaStream_t);                                     \
  template void attention_sinks_gradient<T>(const AttentionShape&, const AttentionRules&,      \
                                            const float*, const float*, T*, cudaStream_t);
WEFT_INSTANTIATE(float)
WEFT_INSTANTIATE(bfloat16)
WEFT_INSTANTIATE(float16)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
