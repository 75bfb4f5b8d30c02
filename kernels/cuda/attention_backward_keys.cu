// dk and dv of fused attention: a block takes 64 keys of a key head, a warp 16 of them, and walks
// over the queries of every head that shares them, 64 or (wide heads) 32 at a time. Scores are
// computed transposed, keys by queries, so that weights are left operands as they lie in registers.
#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/mma.cuh"

namespace weft::cuda {
namespace {

template <int kWidth, typename T>
struct KeyTiles {
  static constexpr int kQueries = kWidth >= 96 ? 32 : 64;
  static constexpr int kRowPitch = kPitch<T, kWidth>;
  static constexpr int kKeyTile = kTileTokens * kRowPitch, kQueryTile = kQueries * kRowPitch;
  static constexpr size_t kBytes = 2 * (kKeyTile + kQueryTile) * sizeof(T);
  T *keys, *values, *queries, *d_out;
};

// The queries that a block goes through, head by head.
struct QueryWalk {
  int64_t head, query;
};

template <int kQueries>
__device__ bool find_queries(const Attention& a, int64_t row, int64_t last_head,
                             const TokenRange& keys, QueryWalk& walk, TileView& seen) {
  for (; walk.head < last_head; ++walk.head, walk.query = 0) {
    for (; walk.query < a.shape.queries; walk.query += kQueries) {
      seen = view<kTileTokens>(
          a.rules, range_of<kQueries>(a.ranges.queries, row, a.shape.queries, walk.query), keys);
      if (seen != TileView::kNone) return true;
    }
  }
  return false;
}

template <int kTiles, typename T>
__device__ void weigh_tile(const BackwardArguments<T>& arguments, ScorePlace at, bool masked,
                           float (&products)[kTiles][4], float (&gradients)[kTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t first_key = at.key, first_query = at.query + 2 * (lane % 4);
  WEFT_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    WEFT_UNROLL
    for (int column = 0; column < 2; ++column) {
      at.query = first_query + 8 * tile + column;
      const QuerySums sums = query_sums(arguments, at.row, at.head, at.query);
      WEFT_UNROLL
      for (int half = 0; half < 2; ++half) {
        at.key = first_key + 8 * half;
        const int i = 2 * half + column;
        gradients[tile][i] *=
            weigh<T>(arguments.attention, at, masked, sums, products[tile][i], gradients[tile][i]);
      }
    }
  }
}

template <int kWidth, typename T>
__global__ void __launch_bounds__(kAttentionThreads)
    keys_kernel(const __grid_constant__ BackwardArguments<T> arguments) {
  using Tiles = KeyTiles<kWidth, T>;
  constexpr int kQueries = Tiles::kQueries, kRowPitch = Tiles::kRowPitch;
  const Attention& a = arguments.attention;
  const AttentionShape& shape = a.shape;
  T* first = shared_memory<T>();
  const Tiles t{first, first + Tiles::kKeyTile, first + 2 * Tiles::kKeyTile,
                first + 2 * Tiles::kKeyTile + Tiles::kQueryTile};
  const int64_t tiles = (shape.keys + kTileTokens - 1) / kTileTokens;
  const int64_t item = blockIdx.x, first_key = item % tiles * kTileTokens;
  const int64_t row = item / tiles / shape.key_heads, key_head = item / tiles % shape.key_heads;
  const int64_t group = shape.heads / shape.key_heads, last_head = (key_head + 1) * group;
  const TokenRange range = range_of<kTileTokens>(a.ranges.keys, row, shape.keys, first_key);
  const auto load_queries = [&](const QueryWalk& walk) {
    load_tile<kQueries, kWidth>(t.queries, rows_of(arguments.q, row, walk.head), walk.query,
                                shape.queries, shape.width, a.aligned);
    load_tile<kQueries, kWidth>(t.d_out, rows_of(arguments.d_out, row, walk.head), walk.query,
                                shape.queries, shape.value_width, a.aligned);
  };
  load_tile<kTileTokens, kWidth>(t.keys, rows_of(arguments.k, row, key_head), first_key, shape.keys,
                                 shape.width, a.aligned);
  load_tile<kTileTokens, kWidth>(t.values, rows_of(arguments.v, row, key_head), first_key,
                                 shape.keys, shape.value_width, a.aligned);

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t own_key = first_key + 16 * warp + lane / 4;
  float dk[kWidth / 8][4], dv[kWidth / 8][4];
  clear(dk);
  clear(dv);
  QueryWalk walk{key_head * group, 0};
  TileView seen = TileView::kNone;
  while (find_queries<kQueries>(a, row, last_head, range, walk, seen)) {
    load_queries(walk);
    copies_commit();
    copies_wait<0>();
    __syncthreads();  // queries and gradients are there
    float products[kQueries / 8][4], gradients[kQueries / 8][4];
    clear(products);
    clear(gradients);
    add_product_transposed<kWidth>(products, t.keys + 16 * warp * kRowPitch, t.queries, kRowPitch);
    add_product_transposed<kWidth>(gradients, t.values + 16 * warp * kRowPitch, t.d_out, kRowPitch);
    weigh_tile(arguments, {row, walk.head, walk.query, own_key}, seen == TileView::kSome, products,
               gradients);
    add_product<T>(dv, products, t.d_out, kRowPitch);
    add_product<T>(dk, gradients, t.queries, kRowPitch);
    __syncthreads();  // all are done with the queries
    walk.query += kQueries;
  }
  copies_wait<0>();
  const float plain[2] = {1.0F, 1.0F}, scaled[2] = {a.scale, a.scale};
  store_rows(dv, plain, arguments.dv, row, key_head, first_key + 16 * warp, shape.keys,
             shape.value_width);
  store_rows(dk, scaled, arguments.dk, row, key_head, first_key + 16 * warp, shape.keys,
             shape.width);
}

template <typename T>
struct KeysLaunch {
  const BackwardArguments<T>& arguments;
  cudaStream_t stream;
  template <int kWidth>
  void run() const {
    const AttentionShape& shape = arguments.attention.shape;
    const int64_t tiles = (shape.keys + kTileTokens - 1) / kTileTokens;
    launch_shared(stream, static_cast<unsigned>(shape.rows * shape.key_heads * tiles),
                  kAttentionThreads, KeyTiles<kWidth, T>::kBytes, keys_kernel<kWidth, T>,
                  arguments);
  }
};

}  // namespace

template <typename T>
void backward_keys(const BackwardArguments<T>& arguments, cudaStream_t stream) {
  with_width(arguments.attention.shape.widest(), KeysLaunch<T>{arguments, stream});
}
template void backward_keys<float>(const BackwardArguments<float>&, cudaStream_t);
template void backward_keys<bfloat16>(const BackwardArguments<bfloat16>&, cudaStream_t);
template void backward_keys<float16>(const BackwardArguments<float16>&, cudaStream_t);

}  // namespace weft::cuda
