// The gradient of a table by distance. A block takes some tiles of 64 queries of a head of a row
// and walks over the keys; the gradients of a tile's scores go through shared memory, where a
// thread adds up each diagonal. So every sum has one order. A block's sums, and no others, stand in
// memory; a warp then adds up those of an entry. The numerical policy stands in attention.h. Where
// groups of rows have tables of their own, the blocks of a head of a row depend on its tokens
// alone.
//
// Where the positions of a tile's queries, or keys, do not stand one behind the other (packed rows,
// where one ends), its diagonals are no distances: each thread looks for what is its own.
#include <algorithm>

#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/mma.cuh"

namespace weft::cuda {
namespace {

constexpr int kDiagonals = 2 * kTileTokens - 1;
constexpr int64_t kGroupParts = 8;  // of a head of a row, at most, where groups have own tables
// Of a block's sums: the table's, with kRoom more on either side, which belong to its ends. So a
// tile's diagonals have entries of their own wherever it stands.
constexpr int64_t kRoom = kDiagonals - 1;
__host__ __device__ inline int64_t entries_of(int64_t reach) { return 2 * (reach + kRoom) + 1; }

bool is_grouped(const AttentionShape& shape, const AttentionRules& rules) {
  return rules.distance_rows <= shape.rows;
}
// How many blocks share the queries of a head of a row. Depends on sizes alone.
int64_t parts_of(const AttentionShape& shape, const AttentionRules& rules) {
  const int64_t tiles = (shape.queries + kTileTokens - 1) / kTileTokens;
  if (is_grouped(shape, rules)) return std::clamp<int64_t>(tiles, 1, kGroupParts);
  const int64_t heads = shape.rows * shape.heads;
  const int64_t wanted = heads == 0 ? 1 : (kDistanceBlocks + heads - 1) / heads;
  return tiles < 1 ? 1 : wanted < tiles ? wanted : tiles;
}

template <typename T>
struct DistanceArguments {
  BackwardArguments<T> backward;
  int64_t parts;
  float* sums;  // [rows, heads, parts, entries_of]
};

template <int kWidth, typename T>
struct DistanceTiles {
  static constexpr int kRowPitch = kPitch<T, kWidth>, kTile = kTileTokens * kRowPitch;
  static constexpr int kScorePitch = kTileTokens + 1, kScores = kTileTokens * kScorePitch;
  static constexpr size_t kBytes =
      2 * kTileTokens * sizeof(int64_t) + kScores * sizeof(float) + 4 * kTile * sizeof(T);
};

__device__ inline int64_t within(int64_t least, int64_t value, int64_t most) {
  return value < least ? least : value > most ? most : value;
}

// Of the tile's tokens: queries, then keys. Returns whether both stand one behind the other.
__device__ inline bool load_positions(const Attention& a, int64_t row, int64_t first_query,
                                      int64_t first_key, int64_t* positions) {
  const int thread = static_cast<int>(threadIdx.x), own = thread % kTileTokens;
  const bool of_keys = thread >= kTileTokens;
  const int64_t tokens = of_keys ? a.shape.keys : a.shape.queries;
  const int64_t first = of_keys ? first_key : first_query;
  const int64_t* from = of_keys ? a.rules.key_position : a.rules.query_position;
  const int64_t token = first + own < tokens ? first + own : first;
  const int64_t position = position_at(from, row, tokens, token);
  positions[thread] = position;
  return __syncthreads_or(position - position_at(from, row, tokens, first) != token - first) == 0;
}

// sums += scores [kTileTokens queries, kTileTokens keys], each where its distance says.
template <int kScorePitch>
__device__ void add_diagonals(const float* scores, const int64_t* positions, int64_t reach,
                              float* sums) {
  const int diagonal = static_cast<int>(threadIdx.x);
  if (diagonal >= kDiagonals) return;
  const int ahead = diagonal - (kTileTokens - 1);
  float sum = 0.0F;
  for (int query = max(0, -ahead); query < kTileTokens - max(0, ahead); ++query) {
    sum += scores[query * kScorePitch + query + ahead];
  }
  const int64_t least = positions[kTileTokens] - positions[0] - (kTileTokens - 1);
  sums[within(-reach - kRoom, least, reach) + reach + kRoom + diagonal] += sum;
}
template <int kScorePitch>
__device__ void add_own(const float* scores, const int64_t* positions, int64_t reach, float* sums) {
  for (int query = 0; query < kTileTokens; ++query) {
    for (int key = 0; key < kTileTokens; ++key) {
      const int64_t ahead = positions[kTileTokens + key] - positions[query];
      const int64_t entry = within(-reach, ahead, reach) + reach + kRoom;
      if (entry % kAttentionThreads == static_cast<int>(threadIdx.x)) {
        sums[entry] += scores[query * kScorePitch + key];
      }
    }
  }
}

// A warp's 16 queries of the tile.
template <int kScorePitch, typename T, int kTiles>
__device__ void store_gradients(const BackwardArguments<T>& arguments, ScorePlace at, bool masked,
                                float (&products)[kTiles][4], float (&gradients)[kTiles][4],
                                float* scores) {
  const int lane = static_cast<int>(threadIdx.x) % 32, column = 2 * (lane % 4);
  const int64_t first_query = at.query, first_key = at.key;
  WEFT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int query = lane / 4 + 8 * half;
    at.query = first_query + query;
    const QuerySums of_query = query_sums(arguments, at.row, at.head, at.query);
    WEFT_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) {
      const int tile = i / 2, element = 2 * half + i % 2, key = 8 * tile + column + i % 2;
      at.key = first_key + key;
      weigh<T>(arguments.attention, at, masked, of_query, products[tile][element],
               gradients[tile][element]);
      scores[query * kScorePitch + key] = gradients[tile][element];
    }
  }
}

template <int kWidth, typename T>
__global__ void __launch_bounds__(kAttentionThreads)
    distances_kernel(const __grid_constant__ DistanceArguments<T> call) {
  using Tiles = DistanceTiles<kWidth, T>;
  constexpr int kRowPitch = Tiles::kRowPitch, kTile = Tiles::kTile;
  const BackwardArguments<T>& arguments = call.backward;
  const Attention& a = arguments.attention;
  const AttentionShape& shape = a.shape;
  const int64_t reach = a.rules.distance_reach, entries = entries_of(reach);
  int64_t* positions = shared_memory<int64_t>();
  float* scores = reinterpret_cast<float*>(positions + 2 * kTileTokens);
  T* queries = reinterpret_cast<T*>(scores + Tiles::kScores);
  T *keys = queries + kTile, *d_out = keys + kTile, *values = d_out + kTile;

  const int64_t item = blockIdx.x, part = item % call.parts;
  const int64_t head = item / call.parts % shape.heads, row = item / call.parts / shape.heads;
  const int64_t key_head = head / (shape.heads / shape.key_heads);
  float* sums = call.sums + item * entries;
  for (int64_t i = threadIdx.x; i < entries; i += kAttentionThreads) sums[i] = 0.0F;

  const int warp = static_cast<int>(threadIdx.x) / 32;
  const auto load = [&](T* tile, const TokenRows<const T>& from, int64_t token, int64_t tokens,
                        int width) {
    load_tile<kTileTokens, kWidth>(tile, from, token, tokens, width, a.aligned);
  };
  for (int64_t first_query = part * kTileTokens; first_query < shape.queries;
       first_query += call.parts * kTileTokens) {
    load(queries, rows_of(arguments.q, row, head), first_query, shape.queries, shape.width);
    load(d_out, rows_of(arguments.d_out, row, head), first_query, shape.queries, shape.value_width);
    copies_commit();
    for (int64_t first_key = 0; first_key < shape.keys; first_key += kTileTokens) {
      const TileView seen = view<kTileTokens>(
          a.rules, range_of<kTileTokens>(a.ranges.queries, row, shape.queries, first_query),
          range_of<kTileTokens>(a.ranges.keys, row, shape.keys, first_key));
      if (seen == TileView::kNone) continue;
      load(keys, rows_of(arguments.k, row, key_head), first_key, shape.keys, shape.width);
      load(values, rows_of(arguments.v, row, key_head), first_key, shape.keys, shape.value_width);
      copies_commit();
      copies_wait<0>();
      const bool in_line = load_positions(a, row, first_query, first_key, positions);  // a barrier
      float products[kTileTokens / 8][4], gradients[kTileTokens / 8][4];
      clear(products);
      clear(gradients);
      add_product_transposed<kWidth>(products, queries + 16 * warp * kRowPitch, keys, kRowPitch);
      add_product_transposed<kWidth>(gradients, d_out + 16 * warp * kRowPitch, values, kRowPitch);
      store_gradients<Tiles::kScorePitch>(
          arguments, {row, head, first_query + 16 * warp, first_key}, seen == TileView::kSome,
          products, gradients, scores + 16 * warp * Tiles::kScorePitch);
      __syncthreads();  // the gradients are there
      if (in_line) {
        add_diagonals<Tiles::kScorePitch>(scores, positions, reach, sums);
      } else {
        add_own<Tiles::kScorePitch>(scores, positions, reach, sums);
      }
      __syncthreads();  // all are done with the tiles, and the next sums meet these
    }
    copies_wait<0>();  // also where no key was seen: the next queries come to the same place
  }
}

// A warp an entry of a table: over its rows, parts and, at the table's ends, what lies beyond.
__global__ void sum_parts_kernel(const float* sums, int64_t groups, int64_t rows, int64_t heads,
                                 int64_t parts, int64_t reach, float* d_table) {
  const int64_t entries = entries_of(reach), width = 2 * reach + 1;
  for (int64_t i = blockIdx.x; i < groups * heads * width; i += gridDim.x) {
    const int64_t first_row = i / width / heads * rows, head = i / width % heads, at = i % width;
    const int64_t first = at == 0 ? 0 : at + kRoom;
    const int64_t past = at == width - 1 ? entries : at + kRoom + 1, count = past - first;
    float total = 0.0F;
    for (int64_t j = threadIdx.x; j < rows * parts * count; j += kWarp) {
      const int64_t part = j / count, row = first_row + part / parts;
      total += sums[((row * heads + head) * parts + part % parts) * entries + first + j % count];
    }
    total = warp_reduce<Add>(total);
    if (threadIdx.x == 0) d_table[i] = total;
  }
}

template <typename T>
struct DistanceLaunch {
  const DistanceArguments<T>& call;
  cudaStream_t stream;
  template <int kWidth>
  void run() const {
    const AttentionShape& shape = call.backward.attention.shape;
    launch_shared(stream, static_cast<unsigned>(shape.rows * shape.heads * call.parts),
                  kAttentionThreads, DistanceTiles<kWidth, T>::kBytes, distances_kernel<kWidth, T>,
                  call);
  }
};

}  // namespace

int64_t attention_distance_scratch_bytes(const AttentionShape& shape, const AttentionRules& rules) {
  return attention_scratch_bytes(shape) + shape.rows * shape.heads * parts_of(shape, rules) *
                                              entries_of(rules.distance_reach) *
                                              static_cast<int64_t>(sizeof(float));
}

template <typename T>
void attention_distance_gradient(const AttentionShape& shape, const AttentionRules& rules,
                                 AttentionHeads<const T> q, AttentionHeads<const T> k,
                                 AttentionHeads<const T> v, AttentionHeads<const T> d_out,
                                 const float* log_sum_exp, const float* delta, float* d_table,
                                 void* scratch, cudaStream_t stream) {
  check_attention(shape, rules);
  const bool aligned = rows_aligned(q) && rows_aligned(k) && rows_aligned(v) && rows_aligned(d_out);
  const RangeTables ranges = make_ranges(shape, rules, scratch, stream);
  auto* sums =
      reinterpret_cast<float*>(static_cast<char*>(scratch) + attention_scratch_bytes(shape));
  const DistanceArguments<T> call{
      {attention_of(shape, rules, ranges, aligned), q, k, v, d_out, log_sum_exp, delta, {}, {}, {}},
      parts_of(shape, rules),
      sums};
  with_width(shape.widest(), DistanceLaunch<T>{call, stream});
  const int64_t reach = rules.distance_reach;
  const int64_t rows = is_grouped(shape, rules) ? rules.distance_rows : shape.rows;
  const int64_t groups = is_grouped(shape, rules) ? shape.rows / rows : 1;
  launch(stream, blocks_of(groups * shape.heads * (2 * reach + 1), 1), kWarp, sum_parts_kernel,
         static_cast<const float*>(sums), groups, rows, shape.heads, call.parts, reach, d_table);
}

#define WEFT_INSTANTIATE(T)                                                                    \
  template void attention_distance_gradient<T>(                                                \
      const AttentionShape&, const AttentionRules&, AttentionHeads<const T>,                   \
      AttentionHeads<const T>, AttentionHeads<const T>, AttentionHeads<const T>, const float*, \
      const float*, float*, void*, cudaStream_t);
WEFT_INSTANTIATE(float)
WEFT_INSTANTIATE(bfloat16)
WEFT_INSTANTIATE(float16)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
