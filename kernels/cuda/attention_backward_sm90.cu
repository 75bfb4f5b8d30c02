// The backward pass of fused attention on sm_90a, one kernel for dq and, turned round, for dk and
// dv: an item owns 128 tokens, a consumer warp group 64 of them, and tiles of 64 tokens of the
// other side come by bulk copies, with log-sum-exp and delta of queries that come. One group's
// products run while the other weighs and, where registers allow it, those of a tile start before
// the last ones of the tile before have ended. With queries owned and keys to come:
//   S = q k^T, dP = dO v^T, dS from them (attention_backward.cuh), dq += dS k;
// with keys owned and queries of all heads that share them to come, all transposed:
//   S^T = k q^T, dP^T = v dO^T, dv += P^T dO, dk += dS^T q.
// The numerical policy stands in attention.h.
#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/attention_sm90.cuh"

namespace weft::cuda {
namespace {

constexpr int kGroups = 2;  // of consumers
constexpr int kOwn = 64 * kGroups;
constexpr int kOther = 64;

template <typename T>
struct BackwardCall {
  BackwardArguments<T> arguments;
  TensorMap q, k, v, d_out;  // in boxes of kOther tokens
  Items of_queries, of_keys;
};

// QuerySums of two queries, one behind the other.
struct alignas(16) SumsOfTwo {
  float lse[2], delta[2];
};

// Shared memory: own tiles (q and dO, or k and v), stages of the others with their queries' sums,
// barrier objects.
template <bool kOfKeys, int kWidth>
struct BackwardRoom {
  static constexpr int kStages = kWidth > 64 ? 3 : 4, kOwnStages = 2;
  using OwnTile = PanelTile<kOwn, kWidth>;
  using OtherTile = PanelTile<kOther, kWidth>;
  using Own = Stages<kOwnStages>;
  static constexpr int kOthersAt = 2 * kOwnStages * OwnTile::kBytes;
  static constexpr int kSumsAt = kOthersAt + 2 * kStages * OtherTile::kBytes;
  static constexpr int kStagesAt =
      kSumsAt + (kOfKeys ? kStages * kOther / 2 * static_cast<int>(sizeof(SumsOfTwo)) : 0);
  static constexpr int kAllStages = kStages + kOwnStages;
  static constexpr size_t kBytes = kStagesAt + kAllStages * sizeof(Stage);
  unsigned char* const bytes = shared_memory<unsigned char>();
  const Stages<kStages> others{reinterpret_cast<Stage*>(bytes + kStagesAt)};
  const Own own{others.first + kStages};
  __device__ unsigned char* own_tile(int turn, int i) const {
    return bytes + (2 * Own::index(turn) + i) * OwnTile::kBytes;
  }
  __device__ unsigned char* first_tile(int n) const {
    return bytes + kOthersAt + others.index(n) * OtherTile::kBytes;
  }
  __device__ unsigned char* second_tile(int n) const {
    return first_tile(n) + kStages * OtherTile::kBytes;
  }
  __device__ SumsOfTwo* sums(int n) const {
    return reinterpret_cast<SumsOfTwo*>(bytes + kSumsAt) + others.index(n) * (kOther / 2);
  }
};

// What an item is: tokens of a head, of keys or of queries.
struct Place {
  int row, head, first;
};
template <bool kOfKeys>
__device__ Place place_of(const AttentionShape& shape, const Items::Place& item) {
  const auto heads = static_cast<unsigned>(kOfKeys ? shape.key_heads : shape.heads);
  return {static_cast<int>(item.head / heads), static_cast<int>(item.head % heads),
          static_cast<int>(kOwn * item.tile)};
}

// The whole warp writes the sums of the n-th tile's queries, which the leader's arrival hands on.
template <int kWidth, typename T>
__device__ void bring_sums(const BackwardArguments<T>& arguments,
                           const BackwardRoom<true, kWidth>& room, int n, const Place& queries) {
  const int lane = static_cast<int>(threadIdx.x);
  QuerySums sums[kOther / 32];
  WEFT_UNROLL
  for (int i = 0; i < kOther / 32; ++i) {
    sums[i] = query_sums(arguments, queries.row, queries.head, queries.first + 32 * i + lane);
  }
  room.others.wait_empty(n);
  WEFT_UNROLL
  for (int i = 0; i < kOther / 32; ++i) {
    SumsOfTwo& to = room.sums(n)[16 * i + lane / 2];
    to.lse[lane % 2] = sums[i].lse;
    to.delta[lane % 2] = sums[i].delta;
  }
  __syncwarp();
}

// n: the tiles that went through before; counted on.
template <bool kOfKeys, int kWidth, typename T>
__device__ void produce(const BackwardCall<T>& call, const BackwardRoom<kOfKeys, kWidth>& room,
                        const Place& place, int turn, int& n) {
  const Attention& a = call.arguments.attention;
  const AttentionShape& shape = a.shape;
  const bool leads = threadIdx.x == 0;
  const auto copy_pair = [&]<int kTokens>(unsigned char* to_first, unsigned char* to_second,
                                          Barrier* full, bool keys, int head, int token) {
    const BoxPlace at{0, token, head, place.row};
    barrier_expect(full, 2 * PanelTile<kTokens, kWidth>::kBytes);
    copy_tile<kTokens, kWidth, kOther>(to_first, keys ? call.k : call.q, at, full);
    copy_tile<kTokens, kWidth, kOther>(to_second, keys ? call.v : call.d_out, at, full);
  };
  if (leads) {
    room.own.wait_empty(turn);
    Stage& own = room.own[turn];
    own.token = place.first;
    own.head = place.head;
    own.row = place.row;
    copy_pair.template operator()<kOwn>(room.own_tile(turn, 0), room.own_tile(turn, 1), &own.full,
                                        kOfKeys, place.head, place.first);
  }
  const int64_t own_tokens = kOfKeys ? shape.keys : shape.queries;
  const int64_t others = kOfKeys ? shape.queries : shape.keys;
  const int tiles = static_cast<int>((others + kOther - 1) / kOther);
  const int shared = static_cast<int>(shape.heads / shape.key_heads);
  const int first_head = kOfKeys ? place.head * shared : place.head / shared;
  // What has few registers reads the ranges of its own tokens again for each tile.
  const auto look = [&](int i) {
    const TokenRange other = range_of<kOther>(kOfKeys ? a.ranges.queries : a.ranges.keys, place.row,
                                              others, int64_t{kOther} * (i % tiles));
    unsigned views = 0;
    WEFT_ROLLED
    for (int group = 0; group < kGroups; ++group) {
      const int token = place.first + 64 * group;
      if (token >= own_tokens) continue;
      const TokenRange own =
          range_of<64>(kOfKeys ? a.ranges.keys : a.ranges.queries, place.row, own_tokens, token);
      views |=
          view_at(kOfKeys ? view<64>(a.rules, other, own) : view<64>(a.rules, own, other), group);
    }
    return views;
  };
  each_seen((kOfKeys ? shared : 1) * tiles, look, [&](int i, unsigned views) {
    const int head = first_head + i / tiles, token = kOther * (i % tiles);
    if constexpr (kOfKeys) bring_sums(call.arguments, room, n, {place.row, head, token});
    if (leads) {
      Stage& stage = room.others[n];
      room.others.wait_empty(n);
      stage.turn = turn;
      stage.token = token;
      stage.head = head;
      stage.views = views;
      copy_pair.template operator()<kOther>(room.first_tile(n), room.second_tile(n), &stage.full,
                                            !kOfKeys, head, token);
    }
    ++n;
  });
}

// Of a thread's queries: its own two rows or, of keys, those of its columns.
template <bool kOfKeys>
struct ThreadSums {
  QuerySums rows[2];
  const SumsOfTwo* columns;
  __device__ float lse(int half, int i) const {
    return kOfKeys ? columns[i / 2 * 4].lse[i % 2] : rows[half].lse;
  }
  __device__ float delta(int half, int i) const {
    return kOfKeys ? columns[i / 2 * 4].delta[i % 2] : rows[half].delta;
  }
};

// Products become weights. at: the thread's first token on both sides.
template <bool kOfKeys, int kTiles>
__device__ void weigh_products(const Attention& a, const ScorePlace& at, bool masked,
                               const ThreadSums<kOfKeys>& sums, float (&products)[kTiles][4]) {
  if (masked) hide<kOfKeys>(a, at, products);
  WEFT_UNROLL
  for (int i = 0; i < 2 * kTiles; ++i) {
    WEFT_UNROLL
    for (int half = 0; half < 2; ++half) {
      float& product = products[i / 2][2 * half + i % 2];
      product = exp2_fast(fmaf(product, a.scale_log2, -sums.lse(half, i)));
    }
  }
}

// The weights' gradients become those of the scores.
template <bool kOfKeys, int kTiles>
__device__ void weigh_gradients(const ThreadSums<kOfKeys>& sums, const float (&weights)[kTiles][4],
                                float (&gradients)[kTiles][4]) {
  WEFT_UNROLL
  for (int i = 0; i < 2 * kTiles; ++i) {
    WEFT_UNROLL
    for (int half = 0; half < 2; ++half) {
      float& gradient = gradients[i / 2][2 * half + i % 2];
      gradient = weights[i / 2][2 * half + i % 2] * (gradient - sums.delta(half, i));
    }
  }
}

// dk and dv, or dq, of a warp's tokens.
template <bool kOfKeys, typename T, int kTiles, int kSecondTiles>
__device__ void store_sums(const BackwardArguments<T>& arguments, const Place& place,
                           int warp_token, const float (&first)[kTiles][4],
                           const float (&second)[kSecondTiles][4]) {
  const AttentionShape& shape = arguments.attention.shape;
  const float scale = arguments.attention.scale;
  const float plain[2] = {1.0F, 1.0F}, scaled[2] = {scale, scale};
  if constexpr (kOfKeys) {
    store_rows(first, scaled, arguments.dk, place.row, place.head, warp_token, shape.keys,
               shape.width);
    store_rows(second, plain, arguments.dv, place.row, place.head, warp_token, shape.keys,
               shape.value_width);
  } else {
    store_rows(first, scaled, arguments.dq, place.row, place.head, warp_token, shape.queries,
               shape.width);
  }
}

template <bool kOfKeys, int kWidth, typename T>
__device__ void consume(const BackwardCall<T>& call, const BackwardRoom<kOfKeys, kWidth>& room,
                        int turn, int& n) {
  const BackwardArguments<T>& arguments = call.arguments;
  const Attention& a = arguments.attention;
  const int group = static_cast<int>(threadIdx.x / kGroupThreads) - 1;
  const int warp = static_cast<int>(threadIdx.x / 32 - kGroupThreads / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  room.own.wait_full(turn);
  const Stage& own = room.own[turn];
  const auto own_token = [&] { return own.token + 16 * warp + lane / 4; };
  ThreadSums<kOfKeys> sums{};
  if (!kOfKeys) {
    sums.rows[0] = query_sums(arguments, own.row, own.head, own_token());
    sums.rows[1] = query_sums(arguments, own.row, own.head, own_token() + 8);
  }
  float d_first[kWidth / 8][4], d_second[kOfKeys ? kWidth / 8 : 1][4];
  clear(d_first);
  clear(d_second);
  constexpr bool kAhead = !kOfKeys || kWidth <= 64;
  uint32_t weights[kOther / 16][4], d_scores[kOther / 16][4];  // kAhead: in use by the next tile
  const auto more = [&](int i) {
    room.others.wait_full(i);
    return room.others[i].turn == turn;
  };

  const int before = n;
  bool goes_on = more(n);
  for (; goes_on; ++n) {
    const Stage& stage = room.others[n];
    const bool masked = view_of(stage.views, group) != TileView::kAll;
    float products[kOther / 8][4], gradients[kOther / 8][4];
    group_fence();
    start_transposed<T, kWidth, kOwn, kOther>(products, room.own_tile(turn, 0), 64 * group,
                                              room.first_tile(n));
    start_transposed<T, kWidth, kOwn, kOther>(gradients, room.own_tile(turn, 1), 64 * group,
                                              room.second_tile(n));
    if (kOfKeys) sums.columns = room.sums(n) + lane % 4;
    group_wait<1>(products);  // and what the tile before adds
    if (kAhead && n > before) room.others.release(n - 1);
    const int other_token = stage.token + 2 * (lane % 4);
    const ScorePlace at{own.row, kOfKeys ? stage.head : own.head,
                        kOfKeys ? other_token : own_token(), kOfKeys ? own_token() : other_token};
    weigh_products(a, at, masked, sums, products);
    goes_on = more(n + 1);  // here: the compiler moves no wait for products up across its loop
    group_wait<0>(gradients);
    weigh_gradients(sums, products, gradients);
    if constexpr (kOfKeys) pack<T>(products, weights);
    pack<T>(gradients, d_scores);
    group_fence();
    if constexpr (kOfKeys) start_product<T, kWidth, kOther>(d_second, weights, room.second_tile(n));
    start_product<T, kWidth, kOther>(d_first, d_scores, room.first_tile(n));
    if constexpr (!kAhead) {
      group_wait<0>(d_first);
      group_wait<0>(d_second);
      room.others.release(n);
    }
  }
  group_wait<0>(d_first);
  if constexpr (kOfKeys) group_wait<0>(d_second);
  if (kAhead && n > before) room.others.release(n - 1);
  const Place place{own.row, own.head, own.token};
  room.own.release(turn);
  store_sums<kOfKeys>(arguments, place, place.first + 16 * warp, d_first, d_second);
}

template <bool kOfKeys, int kWidth, typename T>
__global__ void __launch_bounds__(kGroupThreads*(1 + kGroups), 1)
    backward_kernel_sm90(const __grid_constant__ BackwardCall<T> call) {
  const BackwardRoom<kOfKeys, kWidth> room;
  if (threadIdx.x == 0) init_stages(room.others.first, room.kAllStages, kGroups);
  __syncthreads();  // the barrier objects are there
  int n = 0;
  const Items& items = kOfKeys ? call.of_keys : call.of_queries;
  if (threadIdx.x < kGroupThreads) {
    leave_registers<56>();
    if (threadIdx.x >= 32) return;
    each_item(items.count, [&](int turn, unsigned item) {
      produce<kOfKeys>(call, room, place_of<kOfKeys>(call.arguments.attention.shape, items[item]),
                       turn, n);
    });
    if (threadIdx.x == 0) room.others.end(n);
  } else {
    take_registers<224>();
    each_item(items.count, [&](int turn, unsigned) { consume<kOfKeys>(call, room, turn, n); });
  }
}

template <typename T>
struct BackwardLaunch {
  const BackwardCall<T>& call;
  cudaStream_t stream;
  template <int kWidth>
  void run() const {
    start<false, kWidth>(call.of_queries);
    start<true, kWidth>(call.of_keys);
  }

 private:
  template <bool kOfKeys, int kWidth>
  void start(const Items& items) const {
    launch_shared(stream, blocks_at_once(items.count), kGroupThreads * (1 + kGroups),
                  BackwardRoom<kOfKeys, kWidth>::kBytes, backward_kernel_sm90<kOfKeys, kWidth, T>,
                  call);
  }
};

}  // namespace

template <typename T>
bool attention_backward_sm90(const AttentionShape& shape, const AttentionRules& rules,
                             AttentionHeads<const T> q, AttentionHeads<const T> k,
                             AttentionHeads<const T> v, AttentionHeads<const T> d_out,
                             const float* log_sum_exp, const float* delta, AttentionResult<T> dq,
                             AttentionResult<T> dk, AttentionResult<T> dv, void* scratch,
                             cudaStream_t stream) {
  check_attention(shape, rules);
  if (!is_plain(rules) || !rows_aligned(q) || !rows_aligned(k) || !rows_aligned(v) ||
      !rows_aligned(d_out) || shape.rows == 0 || shape.heads == 0 || shape.queries == 0 ||
      shape.keys == 0) {
    return false;
  }
  BackwardCall<T> call{
      {{}, q, k, v, d_out, log_sum_exp, delta, dq, dk, dv}, {}, {}, {}, {}, {}, {}};
  const int64_t rows = shape.rows, heads = shape.heads, key_heads = shape.key_heads;
  const int64_t bytes = (shape.width + shape.value_width) * int64_t{sizeof(T)};
  const int64_t query_tiles = (shape.queries + kOwn - 1) / kOwn;
  const int64_t key_tiles = (shape.keys + kOwn - 1) / kOwn;
  if (rows * heads * std::max(query_tiles, key_tiles) > kItemsMax) return false;
  call.of_queries =
      items_of(rows * heads, query_tiles, shape.keys * bytes * key_heads / heads, true);
  call.of_keys =
      items_of(rows * key_heads, key_tiles, shape.queries * bytes * heads / key_heads, false);
  if (!map_heads(q, rows, heads, shape.queries, shape.width, kOther, call.q) ||
      !map_heads(k, rows, key_heads, shape.keys, shape.width, kOther, call.k) ||
      !map_heads(v, rows, key_heads, shape.keys, shape.value_width, kOther, call.v) ||
      !map_heads(d_out, rows, heads, shape.queries, shape.value_width, kOther, call.d_out)) {
    return false;
  }
  call.arguments.attention =
      attention_of(shape, rules, make_ranges(shape, rules, scratch, stream), true);
  with_panels(shape.widest(), BackwardLaunch<T>{call, stream});
  return true;
}

#define WEFT_INSTANTIATE(T)                                                                    \
  template bool attention_backward_sm90<T>(                                                    \
      const AttentionShape&, const AttentionRules&, AttentionHeads<const T>,                   \
      AttentionHeads<const T>, AttentionHeads<const T>, AttentionHeads<const T>, const float*, \
      const float*, AttentionResult<T>, AttentionResult<T>, AttentionResult<T>, void*,         \
      cudaStream_t);
WEFT_INSTANTIATE(bfloat16)
WEFT_INSTANTIATE(float16)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
