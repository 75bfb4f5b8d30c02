// The backward pass of fused attention on sm_90a, one kernel for dq and, turned round, for dk and
// dv: a block owns 128 tokens, a consumer warp group 64 of them, and tiles of 64 tokens of the
// other side come by bulk copies, two under way. With queries owned and keys to come:
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
// The sums of dk and dv leave room for scores with 32 queries only where heads are wide.
template <bool kOfKeys, int kWidth>
constexpr int kOthers = kOfKeys&& kWidth > 64 ? 32 : 64;
constexpr int kBoxTokens = 32;

template <typename T>
struct BackwardCall {
  BackwardArguments<T> arguments;
  TensorMap q, k, v, d_out;  // in boxes of kBoxTokens
};

// Shared memory: own tiles (q and dO, or k and v), stages of the others, barrier objects.
template <bool kOfKeys, int kWidth>
struct BackwardRoom {
  static constexpr int kOther = kOthers<kOfKeys, kWidth>;
  using OwnTile = PanelTile<kOwn, kWidth>;
  using OtherTile = PanelTile<kOther, kWidth>;
  static constexpr int kOthersAt = 2 * OwnTile::kBytes;
  static constexpr int kStagesAt = kOthersAt + 2 * kStages * OtherTile::kBytes;
  static constexpr size_t kBytes = kStagesAt + (2 * kStages + 2) * sizeof(Stage);
  unsigned char* const bytes = shared_memory<unsigned char>();
  Stage* const first = reinterpret_cast<Stage*>(bytes + kStagesAt);
  Stage *const second = first + kStages, *const own = second + kStages;
  __device__ unsigned char* own_tile(int i) const { return bytes + i * OwnTile::kBytes; }
  __device__ unsigned char* first_tile(int n) const {
    return bytes + kOthersAt + stage_of(n) * OtherTile::kBytes;
  }
  __device__ unsigned char* second_tile(int n) const {
    return first_tile(n) + kStages * OtherTile::kBytes;
  }
};

// What a block works on: tokens of a head, of keys or of queries.
struct Place {
  int64_t row, head, first;
};
template <bool kOfKeys>
__device__ Place place_of(const AttentionShape& shape) {
  const int64_t heads = kOfKeys ? shape.key_heads : shape.heads;
  const int64_t tiles = ((kOfKeys ? shape.keys : shape.queries) + kOwn - 1) / kOwn;
  const int64_t item = blockIdx.x, tile = item % tiles;  // causal: the longest first
  return {item / tiles / heads, item / tiles % heads, (kOfKeys ? tile : tiles - 1 - tile) * kOwn};
}

template <bool kOfKeys, int kWidth, typename T>
__device__ void produce(const BackwardCall<T>& call, const BackwardRoom<kOfKeys, kWidth>& room,
                        const Place& place) {
  constexpr int kOther = kOthers<kOfKeys, kWidth>;
  const Attention& a = call.arguments.attention;
  const AttentionShape& shape = a.shape;
  const bool leads = threadIdx.x == 0;
  const auto copy_pair = [&]<int kTokens>(unsigned char* to_first, unsigned char* to_second,
                                          Stage& first, Stage& second, bool keys, int head,
                                          int token) {
    const BoxPlace at{0, token, head, static_cast<int>(place.row)};
    copy_tile<kTokens, kWidth, kBoxTokens>(to_first, keys ? call.k : call.q, at, &first.full);
    copy_tile<kTokens, kWidth, kBoxTokens>(to_second, keys ? call.v : call.d_out, at, &second.full);
  };
  if (leads) {
    copy_pair.template operator()<kOwn>(room.own_tile(0), room.own_tile(1), room.own[0],
                                        room.own[1], kOfKeys, static_cast<int>(place.head),
                                        static_cast<int>(place.first));
  }
  const int64_t own_tokens = kOfKeys ? shape.keys : shape.queries;
  const int64_t others = kOfKeys ? shape.queries : shape.keys;
  // What has few registers reads the ranges of its own tokens again for each tile.
  const auto look = [&](int tile) {
    const TokenRange other = range_of<kOther>(kOfKeys ? a.ranges.queries : a.ranges.keys, place.row,
                                              others, int64_t{kOther} * tile);
    unsigned views = 0;
    for (int group = 0; group < kGroups; ++group) {
      const int64_t token = place.first + 64 * group;
      if (token >= own_tokens) continue;
      const TokenRange own =
          range_of<64>(kOfKeys ? a.ranges.keys : a.ranges.queries, place.row, own_tokens, token);
      views |=
          view_at(kOfKeys ? view<64>(a.rules, other, own) : view<64>(a.rules, own, other), group);
    }
    return views;
  };
  int n = 0;
  const auto bring = [&](int head) {
    each_seen(
        static_cast<int>((others + kOther - 1) / kOther), look, [&](int tile, unsigned views) {
          if (leads) {
            Stage &first = room.first[stage_of(n)], &second = room.second[stage_of(n)];
            wait_empty(room.first, n);
            wait_empty(room.second, n);
            first.token = int64_t{kOther} * tile;
            first.head = head;
            first.views = views;
            copy_pair.template operator()<kOther>(room.first_tile(n), room.second_tile(n), first,
                                                  second, !kOfKeys, head, kOther * tile);
          }
          ++n;
        });
  };
  const int shared = static_cast<int>(shape.heads / shape.key_heads);
  const int own_head = static_cast<int>(place.head);
  if (kOfKeys) {
    for (int i = 0; i < shared; ++i) bring(own_head * shared + i);
  } else {
    bring(own_head / shared);
  }
  if (leads) end_tiles(room.first, n);
}

// The sums of a thread's queries: its two rows' or, of keys, those of a column.
template <bool kOfKeys, typename T>
__device__ QuerySums sums_at(const BackwardArguments<T>& arguments, const ScorePlace& at,
                             const QuerySums& own, int column) {
  if (!kOfKeys) return own;
  return query_sums(arguments, at.row, at.head, at.query + column / 2 * 8 + column % 2);
}

// Products become weights. at: the thread's first token on both sides; sums: of its own two
// queries.
template <bool kOfKeys, typename T, int kTiles>
__device__ void weigh_products(const BackwardArguments<T>& arguments, const ScorePlace& at,
                               bool masked, const QuerySums (&sums)[2],
                               float (&products)[kTiles][4]) {
  const Attention& a = arguments.attention;
  if (masked) hide<kOfKeys>(a, at, products);
  WEFT_UNROLL
  for (int i = 0; i < 2 * kTiles; ++i) {
    WEFT_UNROLL
    for (int half = 0; half < 2; ++half) {
      float& product = products[i / 2][2 * half + i % 2];
      const float lse = sums_at<kOfKeys>(arguments, at, sums[half], i).lse;
      product = exp2f(fmaf(product, a.scale_log2, -lse));
    }
  }
}

// The weights' gradients become those of the scores.
template <bool kOfKeys, typename T, int kTiles>
__device__ void weigh_gradients(const BackwardArguments<T>& arguments, const ScorePlace& at,
                                const QuerySums (&sums)[2], const float (&weights)[kTiles][4],
                                float (&gradients)[kTiles][4]) {
  WEFT_UNROLL
  for (int i = 0; i < 2 * kTiles; ++i) {
    WEFT_UNROLL
    for (int half = 0; half < 2; ++half) {
      float& gradient = gradients[i / 2][2 * half + i % 2];
      const float delta = sums_at<kOfKeys>(arguments, at, sums[half], i).delta;
      gradient = weights[i / 2][2 * half + i % 2] * (gradient - delta);
    }
  }
}

template <bool kOfKeys, int kWidth, typename T>
__device__ void consume(const BackwardCall<T>& call, const BackwardRoom<kOfKeys, kWidth>& room,
                        const Place& place) {
  constexpr int kOther = kOthers<kOfKeys, kWidth>;
  const BackwardArguments<T>& arguments = call.arguments;
  const Attention& a = arguments.attention;
  const int thread = static_cast<int>(threadIdx.x) - kGroupThreads, group = thread / kGroupThreads;
  const int lane = thread % 32;
  const int64_t warp_token = place.first + thread / 32 * 16, own_token = warp_token + lane / 4;
  QuerySums sums[2] = {};
  if (!kOfKeys) {
    sums[0] = query_sums(arguments, place.row, place.head, own_token);
    sums[1] = query_sums(arguments, place.row, place.head, own_token + 8);
  }
  float d_first[kWidth / 8][4], d_second[kOfKeys ? kWidth / 8 : 1][4];
  clear(d_first);
  clear(d_second);
  const auto more = [&](int n) {
    wait_full(room.first, n);
    return room.first[stage_of(n)].token >= 0;
  };

  barrier_wait(&room.own[0].full, 0);
  barrier_wait(&room.own[1].full, 0);
  for (int n = 0; more(n); ++n) {
    const Stage& stage = room.first[stage_of(n)];
    const int64_t other_token = stage.token + 2 * (lane % 4);
    const ScorePlace at{place.row, kOfKeys ? stage.head : place.head,
                        kOfKeys ? other_token : own_token, kOfKeys ? own_token : other_token};
    const bool masked = view_of(stage.views, group) != TileView::kAll;
    float products[kOther / 8][4], gradients[kOther / 8][4];
    uint32_t weights[kOther / 16][4], d_scores[kOther / 16][4];
    group_fence();
    start_transposed<T, kWidth, kOwn, kOther>(products, room.own_tile(0), 64 * group,
                                              room.first_tile(n));
    group_wait<0>(products);
    weigh_products<kOfKeys>(arguments, at, masked, sums, products);
    if (kOfKeys) pack<T>(products, weights);
    wait_full(room.second, n);
    group_fence();
    start_transposed<T, kWidth, kOwn, kOther>(gradients, room.own_tile(1), 64 * group,
                                              room.second_tile(n));
    if constexpr (kOfKeys) start_product<T, kWidth, kOther>(d_second, weights, room.second_tile(n));
    group_wait<kOfKeys ? 1 : 0>(gradients);
    weigh_gradients<kOfKeys>(arguments, at, sums, products, gradients);
    pack<T>(gradients, d_scores);
    group_fence();
    start_product<T, kWidth, kOther>(d_first, d_scores, room.first_tile(n));
    if constexpr (kOfKeys) group_wait<1>(d_second);
    release(room.second, n);
    group_wait<0>(d_first);
    release(room.first, n);
  }
  const float plain[2] = {1.0F, 1.0F}, scaled[2] = {a.scale, a.scale};
  const AttentionShape& shape = a.shape;
  if constexpr (kOfKeys) {
    store_rows(d_first, scaled, arguments.dk, place.row, place.head, warp_token, shape.keys,
               shape.width);
    store_rows(d_second, plain, arguments.dv, place.row, place.head, warp_token, shape.keys,
               shape.value_width);
  } else {
    store_rows(d_first, scaled, arguments.dq, place.row, place.head, warp_token, shape.queries,
               shape.width);
  }
}

template <bool kOfKeys, int kWidth, typename T>
__global__ void __launch_bounds__(kGroupThreads*(1 + kGroups), 1)
    backward_kernel_sm90(const __grid_constant__ BackwardCall<T> call) {
  const BackwardRoom<kOfKeys, kWidth> room;
  const Place place = place_of<kOfKeys>(call.arguments.attention.shape);
  if (threadIdx.x == 0) init_stages(room.first, 2 * kStages + 2, kGroups);
  __syncthreads();  // the barrier objects are there
  if (threadIdx.x < kGroupThreads) {
    leave_registers<56>();
    if (threadIdx.x < 32) produce<kOfKeys>(call, room, place);
  } else {
    take_registers<224>();
    consume<kOfKeys>(call, room, place);
  }
}

template <typename T>
struct BackwardLaunch {
  const BackwardCall<T>& call;
  cudaStream_t stream;
  template <int kWidth>
  void run() const {
    const AttentionShape& shape = call.arguments.attention.shape;
    start<false, kWidth>(shape.rows * shape.heads, shape.queries);
    start<true, kWidth>(shape.rows * shape.key_heads, shape.keys);
  }

 private:
  template <bool kOfKeys, int kWidth>
  void start(int64_t heads, int64_t tokens) const {
    const int64_t blocks = heads * ((tokens + kOwn - 1) / kOwn);
    launch_shared(stream, static_cast<unsigned>(blocks), kGroupThreads * (1 + kGroups),
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
  BackwardCall<T> call{{{}, q, k, v, d_out, log_sum_exp, delta, dq, dk, dv}, {}, {}, {}, {}};
  const int64_t rows = shape.rows, heads = shape.heads, key_heads = shape.key_heads;
  if (!map_heads(q, rows, heads, shape.queries, shape.width, kBoxTokens, call.q) ||
      !map_heads(k, rows, key_heads, shape.keys, shape.width, kBoxTokens, call.k) ||
      !map_heads(v, rows, key_heads, shape.keys, shape.value_width, kBoxTokens, call.v) ||
      !map_heads(d_out, rows, heads, shape.queries, shape.value_width, kBoxTokens, call.d_out)) {
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
