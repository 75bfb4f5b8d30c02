// dq of fused attention: a block takes 64 queries of a head, a warp 16 of them, and walks over
// tiles of 64 keys. The next values are on their way while score gradients meet the keys.
#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/mma.cuh"

namespace weft::cuda {
namespace {

template <int kWidth, typename T>
struct QueryTiles {
  static constexpr int kRowPitch = kPitch<T, kWidth>, kTile = kTileTokens * kRowPitch;
  static constexpr size_t kBytes = 4 * kTile * sizeof(T);
  T *queries, *d_out, *keys, *values;
};

__device__ inline int64_t next_keys(const Attention& a, int64_t row, const TokenRange& queries,
                                    int64_t from, TileView& seen) {
  for (int64_t key = from; key < a.shape.keys; key += kTileTokens) {
    seen = view<kTileTokens>(a.rules, queries,
                             range_of<kTileTokens>(a.ranges.keys, row, a.shape.keys, key));
    if (seen != TileView::kNone) return key;
  }
  return a.shape.keys;
}

// Products and gradients of a warp's 16 queries with a tile of keys, in place.
template <typename T, int kTiles>
__device__ void weigh_tile(const Attention& a, ScorePlace at, int64_t first_key, bool masked,
                           const QuerySums (&sums)[2], float (&products)[kTiles][4],
                           float (&gradients)[kTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t first_query = at.query;
  WEFT_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    WEFT_UNROLL
    for (int i = 0; i < 4; ++i) {
      at.query = first_query + 8 * (i / 2);
      at.key = first_key + 8 * tile + 2 * (lane % 4) + i % 2;
      gradients[tile][i] *=
          weigh<T>(a, at, masked, sums[i / 2], products[tile][i], gradients[tile][i]);
    }
  }
}

template <int kWidth, typename T>
__global__ void __launch_bounds__(kAttentionThreads)
    queries_kernel(const __grid_constant__ BackwardArguments<T> arguments) {
  using Tiles = QueryTiles<kWidth, T>;
  constexpr int kRowPitch = Tiles::kRowPitch;
  const Attention& a = arguments.attention;
  const AttentionShape& shape = a.shape;
  T* first = shared_memory<T>();
  const Tiles t{first, first + Tiles::kTile, first + 2 * Tiles::kTile, first + 3 * Tiles::kTile};
  const int64_t tiles = (shape.queries + kTileTokens - 1) / kTileTokens;
  const int64_t item = blockIdx.x, first_query = (tiles - 1 - item % tiles) * kTileTokens;
  const int64_t row = item / tiles / shape.heads, head = item / tiles % shape.heads;
  const int64_t key_head = head / (shape.heads / shape.key_heads);
  const TokenRange range = range_of<kTileTokens>(a.ranges.queries, row, shape.queries, first_query);
  const TokenRows<const T> k = rows_of(arguments.k, row, key_head);
  const TokenRows<const T> v = rows_of(arguments.v, row, key_head);
  const auto load = [&](T* tile, const TokenRows<const T>& from, int64_t token, int64_t tokens,
                        int width) {
    load_tile<kTileTokens, kWidth>(tile, from, token, tokens, width, a.aligned);
  };
  load(t.queries, rows_of(arguments.q, row, head), first_query, shape.queries, shape.width);
  load(t.d_out, rows_of(arguments.d_out, row, head), first_query, shape.queries, shape.value_width);
  TileView seen = TileView::kNone;
  int64_t key = next_keys(a, row, range, 0, seen);
  load(t.keys, k, key, shape.keys, shape.width);
  load(t.values, v, key, shape.keys, shape.value_width);
  copies_commit();

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t own_query = first_query + 16 * warp + lane / 4;
  const QuerySums sums[2] = {query_sums(arguments, row, head, own_query),
                             query_sums(arguments, row, head, own_query + 8)};
  float dq[kWidth / 8][4];
  clear(dq);
  while (key < shape.keys) {
    copies_wait<0>();
    __syncthreads();  // keys and values are there
    float products[kTileTokens / 8][4], gradients[kTileTokens / 8][4];
    clear(products);
    clear(gradients);
    add_product_transposed<kWidth>(products, t.queries + 16 * warp * kRowPitch, t.keys, kRowPitch);
    add_product_transposed<kWidth>(gradients, t.d_out + 16 * warp * kRowPitch, t.values, kRowPitch);
    weigh_tile<T>(a, {row, head, own_query, 0}, key, seen == TileView::kSome, sums, products,
                  gradients);
    __syncthreads();  // all are done with the values
    const int64_t next = next_keys(a, row, range, key + kTileTokens, seen);
    if (next < shape.keys) load(t.values, v, next, shape.keys, shape.value_width);
    add_product<T>(dq, gradients, t.keys, kRowPitch);
    __syncthreads();  // all are done with the keys
    if (next < shape.keys) load(t.keys, k, next, shape.keys, shape.width);
    copies_commit();
    key = next;
  }
  copies_wait<0>();
  const float factor[2] = {a.scale, a.scale};
  store_rows(dq, factor, arguments.dq, row, head, first_query + 16 * warp, shape.queries,
             shape.width);
}

template <typename T>
struct QueriesLaunch {
  const BackwardArguments<T>& arguments;
  cudaStream_t stream;
  template <int kWidth>
  void run() const {
    const AttentionShape& shape = arguments.attention.shape;
    const int64_t tiles = (shape.queries + kTileTokens - 1) / kTileTokens;
    launch_shared(stream, static_cast<unsigned>(shape.rows * shape.heads * tiles),
                  kAttentionThreads, QueryTiles<kWidth, T>::kBytes, queries_kernel<kWidth, T>,
                  arguments);
  }
};

}  // namespace

template <typename T>
void backward_queries(const BackwardArguments<T>& arguments, cudaStream_t stream) {
  with_width(arguments.attention.shape.widest(), QueriesLaunch<T>{arguments, stream});
}
template void backward_queries<float>(const BackwardArguments<float>&, cudaStream_t);
template void backward_queries<bfloat16>(const BackwardArguments<bfloat16>&, cudaStream_t);
template void backward_queries<float16>(const BackwardArguments<float16>&, cudaStream_t);

}  // namespace weft::cuda
