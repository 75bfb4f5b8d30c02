// The forward pass of fused attention on sm_90a (after Shah et al. 2024): an item is 128 queries of
// a head, a consumer warp group has 64 of them. Keys and values come by bulk copies, two or four
// tiles of each under way; the products of the next tile's scores run while this tile's weights
// meet the values, and its softmax after them. The two groups start theirs in turn: one multiplies
// while the other has its softmax. The numerical policy stands in attention.h.
#include "kernels/cuda/attention_sm90.cuh"
#include "kernels/cuda/attention_softmax.cuh"

namespace weft::cuda {
namespace {

constexpr int kGroups = 2;  // of consumers
constexpr int kQueries = 64 * kGroups, kKeys = 128;

template <typename T>
struct ForwardCall {
  Attention attention;
  ForwardResults<T> results;
  TensorMap q, k, v;
  Items items;
};

// Shared memory: the tiles, from multiples of 1024 bytes on, then the barrier objects.
template <int kWidth>
struct ForwardRoom {
  static constexpr int kStages = kWidth > 64 ? 2 : 4;
  using Tiles = Stages<kStages>;
  using Queries = Stages<2>;
  using QueryTile = PanelTile<kQueries, kWidth>;
  using KeyTile = PanelTile<kKeys, kWidth>;
  static constexpr int kKeysAt = 2 * QueryTile::kBytes,
                       kValuesAt = kKeysAt + kStages * KeyTile::kBytes;
  static constexpr int kStagesAt = kValuesAt + kStages * KeyTile::kBytes;
  static constexpr int kAllStages = 2 * kStages + 2;
  static constexpr size_t kBytes =
      kStagesAt + kAllStages * sizeof(Stage) + kGroups * sizeof(Barrier);
  unsigned char* const bytes = shared_memory<unsigned char>();
  const Tiles of_keys{reinterpret_cast<Stage*>(bytes + kStagesAt)};
  const Tiles of_values{of_keys.first + kStages};
  const Queries of_queries{of_values.first + kStages};
  const Turns turns{reinterpret_cast<Barrier*>(of_keys.first + kAllStages)};
  __device__ unsigned char* queries(int turn) const {
    return bytes + Queries::index(turn) * QueryTile::kBytes;
  }
  __device__ unsigned char* keys(int n) const {
    return bytes + kKeysAt + Tiles::index(n) * KeyTile::kBytes;
  }
  __device__ unsigned char* values(int n) const {
    return bytes + kValuesAt + Tiles::index(n) * KeyTile::kBytes;
  }
};

// What an item is.
struct Place {
  int row, head, key_head, first_query;
};

__device__ inline Place place_of(const AttentionShape& shape, const Items::Place& item) {
  const auto heads = static_cast<unsigned>(shape.heads);
  const auto shared = static_cast<unsigned>(shape.heads / shape.key_heads);
  const unsigned head = item.head % heads;
  return {static_cast<int>(item.head / heads), static_cast<int>(head),
          static_cast<int>(head / shared), static_cast<int>(kQueries * item.tile)};
}

// n: the tiles that went through before; counted on.
template <int kWidth, typename T>
__device__ void produce(const ForwardCall<T>& call, const ForwardRoom<kWidth>& room,
                        const Place& place, int turn, int& n) {
  using Room = ForwardRoom<kWidth>;
  const Attention& a = call.attention;
  const bool leads = threadIdx.x == 0;
  const auto box = [&](int head, int token) { return BoxPlace{0, token, head, place.row}; };
  if (leads) {
    Barrier* full = &room.of_queries[turn].full;
    room.of_queries.wait_empty(turn);
    barrier_expect(full, Room::QueryTile::kBytes);
    copy_tile<kQueries, kWidth>(room.queries(turn), call.q, box(place.head, place.first_query),
                                full);
  }
  // What has few registers reads the ranges of the queries again for each tile.
  const auto look = [&](int tile) {
    const TokenRange keys =
        range_of<kKeys>(a.ranges.keys, place.row, a.shape.keys, int64_t{kKeys} * tile);
    unsigned views = 0;
    WEFT_ROLLED
    for (int group = 0; group < kGroups; ++group) {
      const int first = place.first_query + 64 * group;
      if (first >= a.shape.queries) continue;
      const TokenRange own = range_of<64>(a.ranges.queries, place.row, a.shape.queries, first);
      views |= view_at(view<kKeys>(a.rules, own, keys), group);
    }
    return views;
  };
  const int tiles = static_cast<int>((a.shape.keys + kKeys - 1) / kKeys);
  each_seen(tiles, look, [&](int tile, unsigned views) {
    if (leads) {
      Stage &of_keys = room.of_keys[n], &of_values = room.of_values[n];
      room.of_keys.wait_empty(n);
      of_keys.turn = turn;
      of_keys.token = kKeys * tile;
      of_keys.views = views;
      barrier_expect(&of_keys.full, Room::KeyTile::kBytes);
      copy_tile<kKeys, kWidth>(room.keys(n), call.k, box(place.key_head, kKeys * tile),
                               &of_keys.full);
      room.of_values.wait_empty(n);
      barrier_expect(&of_values.full, Room::KeyTile::kBytes);
      copy_tile<kKeys, kWidth>(room.values(n), call.v, box(place.key_head, kKeys * tile),
                               &of_values.full);
    }
    ++n;
  });
}

// A tile of keys as a group of consumers finds it.
struct TileOfKeys {
  int turn, first;
  bool masked;
};
template <int kWidth>
__device__ TileOfKeys wait_for_keys(const ForwardRoom<kWidth>& room, int n, int group) {
  room.of_keys.wait_full(n);
  const Stage& stage = room.of_keys[n];
  return {stage.turn, stage.token, view_of(stage.views, group) != TileView::kAll};
}

// n counts tiles, through all items: the next one's scores are started before one is stored.
template <int kWidth, typename T>
__device__ void consume(const ForwardCall<T>& call, const ForwardRoom<kWidth>& room) {
  const Attention& a = call.attention;
  const int warp = static_cast<int>(threadIdx.x / 32) - kGroupThreads / 32, group = warp / 4;
  const int lane = static_cast<int>(threadIdx.x % 32);
  int turn = 0, n = 0;
  float scores[kKeys / 8][4], out[kWidth / 8][4], keep[2];
  uint32_t weights[kKeys / 16][4];
  RunningRows rows;
  TileOfKeys tile = wait_for_keys(room, 0, group);
  ScorePlace first{};  // the warp's first query
  const auto begin = [&] {
    const Place place = place_of(a.shape, call.items[item_of(turn)]);
    first = {place.row, place.head, place.first_query + 16 * warp, 0};
    clear(out);
    rows = {};
  };
  const auto start_scores = [&](int i, int of_turn) {
    group_fence();
    start_transposed<T, kWidth, kQueries, kKeys>(scores, room.queries(of_turn), 64 * group,
                                                 room.keys(i));
  };
  const auto start_weighing = [&](int i) {
    room.of_values.wait_full(i);
    group_fence();
    start_product<T, kWidth, kKeys>(out, weights, room.values(i));
  };
  const auto weigh = [&] {
    const ScorePlace at{first.row, first.head, first.query + lane / 4, tile.first};
    softmax_step<T, true>(a, at, tile.masked, scores, rows, keep);
  };
  const auto end = [&] {
    group_wait<0>(out);
    room.of_values.release(n);
    room.of_queries.release(turn);
    finish(a, call.results, first, rows, out);
  };

  begin();
  room.of_queries.wait_full(0);
  room.turns.wait(group, 0);
  start_scores(0, 0);
  room.turns.pass(group);
  group_wait<0>(scores);
  room.of_keys.release(0);
  weigh();
  pack<T>(scores, weights);
  for (tile = wait_for_keys(room, 1, group); tile.turn >= 0; ++n) {
    const bool ends = tile.turn != turn;
    if (ends) room.of_queries.wait_full(tile.turn);
    room.turns.wait(group, n + 1);
    start_scores(n + 1, tile.turn);
    start_weighing(n);
    room.turns.pass(group);
    group_wait<1>(scores);
    room.of_keys.release(n + 1);
    if (ends) {
      end();
      turn = tile.turn;
      begin();
    }
    weigh();
    tile = wait_for_keys(room, n + 2, group);  // a loop: no wait for products moves up across it
    group_wait<0>(out);
    if (!ends) room.of_values.release(n);
    shrink(out, keep);
    pack<T>(scores, weights);
  }
  start_weighing(n);
  end();
}

template <int kWidth, typename T>
__global__ void __launch_bounds__(kGroupThreads*(1 + kGroups), 1)
    forward_kernel_sm90(const __grid_constant__ ForwardCall<T> call) {
  const ForwardRoom<kWidth> room;
  if (threadIdx.x == 0) {
    room.turns.init();
    init_stages(room.of_keys.first, room.kAllStages, kGroups);
  }
  __syncthreads();  // the barrier objects are there
  if (threadIdx.x < kGroupThreads) {
    leave_registers<56>();
    if (threadIdx.x >= 32) return;
    int n = 0;
    each_item(call.items.count, [&](int turn, unsigned item) {
      produce(call, room, place_of(call.attention.shape, call.items[item]), turn, n);
    });
    if (threadIdx.x == 0) room.of_keys.end(n);
  } else {
    take_registers<224>();
    consume(call, room);
  }
}

template <typename T>
struct ForwardLaunch {
  const ForwardCall<T>& call;
  cudaStream_t stream;
  template <int kWidth>
  void run() const {
    launch_shared(stream, blocks_at_once(call.items.count), kGroupThreads * (1 + kGroups),
                  ForwardRoom<kWidth>::kBytes, forward_kernel_sm90<kWidth, T>, call);
  }
};

}  // namespace

template <typename T>
bool attention_forward_sm90(const AttentionShape& shape, const AttentionRules& rules,
                            AttentionHeads<const T> q, AttentionHeads<const T> k,
                            AttentionHeads<const T> v, AttentionResult<T> out, float* log_sum_exp,
                            void* scratch, cudaStream_t stream) {
  check_attention(shape, rules);
  if (!is_plain(rules) || !rows_aligned(q) || !rows_aligned(k) || !rows_aligned(v)) return false;
  if (shape.rows == 0 || shape.heads == 0 || shape.queries == 0 || shape.keys == 0) return false;
  const int64_t tiles = (shape.queries + kQueries - 1) / kQueries, heads = shape.rows * shape.heads;
  const int64_t key_bytes = shape.keys * (shape.width + shape.value_width) * int64_t{sizeof(T)};
  if (heads * tiles > kItemsMax) return false;
  ForwardCall<T> call{{}, {out, log_sum_exp}, {}, {}, {}, {}};
  call.items = items_of(heads, tiles, key_bytes * shape.key_heads / shape.heads, true);
  if (!map_heads(q, shape.rows, shape.heads, shape.queries, shape.width, kQueries, call.q) ||
      !map_heads(k, shape.rows, shape.key_heads, shape.keys, shape.width, kKeys, call.k) ||
      !map_heads(v, shape.rows, shape.key_heads, shape.keys, shape.value_width, kKeys, call.v)) {
    return false;
  }
  call.attention = attention_of(shape, rules, make_ranges(shape, rules, scratch, stream), true);
  with_panels(shape.widest(), ForwardLaunch<T>{call, stream});
  return true;
}

#define WEFT_INSTANTIATE(T)                                                                    \
  template bool attention_forward_sm90<T>(const AttentionShape&, const AttentionRules&,        \
                                          AttentionHeads<const T>, AttentionHeads<const T>,    \
                                          AttentionHeads<const T>, AttentionResult<T>, float*, \
                                          void*, cudaStream_t);
WEFT_INSTANTIATE(bfloat16)
WEFT_INSTANTIATE(float16)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
