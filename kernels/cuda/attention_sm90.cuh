// Tiles of q, k, v for the products of warp groups (ptx_sm90.cuh): panels of 64 features, each with
// a row of 128 bytes a token. Internal to the attention kernels of sm_90a.
//
// A block is a producer warp group, of which one warp looks for tiles that somebody sees and starts
// their bulk copies, and groups of consumers. A stage is a tile with two barrier objects: `full`
// ends a phase when its bytes are there, `empty` when all consumer warps are done with them. n
// counts the tiles that go through. There are no more blocks than multiprocessors: each takes items
// of work in turn, and while its consumers end one, tiles of the next are under way.
#pragma once

#include <algorithm>

#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/ptx_sm90.cuh"

namespace weft::cuda {

constexpr int kGroupThreads = 128;
constexpr int kPanelWidth = 64;
constexpr int64_t kItemsMax = int64_t{1} << 30;

// A tile of kTokens tokens, kWidth (64 or 128) features.
template <int kTokens, int kWidth>
struct PanelTile {
  static constexpr int kPanels = kWidth / kPanelWidth, kPanelBytes = kTokens * 128;
  static constexpr int kBytes = kPanels * kPanelBytes;
};

struct Stage {
  Barrier full, empty;
  int turn;        // that the tile belongs to; negative: there are no more tiles
  int token;       // the tile's first
  int head, row;   // where they are asked for
  unsigned views;  // what each consumer group sees of it
};

// What a block takes in its turn. The turns go back and forth: what one block has more in one of
// them it has less in the next.
__device__ inline unsigned item_of(int turn) {
  const unsigned place = turn % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x;
  return static_cast<unsigned>(turn) * gridDim.x + place;
}
// Calls act(turn, item) for the items of this block.
template <typename Act>
__device__ void each_item(unsigned items, const Act& act) {
  for (int turn = 0; item_of(turn) < items; ++turn) act(turn, item_of(turn));
}

// All tiles of own tokens of all heads as items, by sections of heads whose other side fits into
// the L2 cache together. In the last section tiles with more to see come first, in the one before
// last and so on alternately: items beside each other are about as long.
struct Items {
  unsigned count, tiles, heads, together;
  bool last_first;  // the last tile sees most
  struct Place {
    unsigned head, tile;
  };
  __device__ Place operator[](unsigned item) const {
    const unsigned section = item / (tiles * together), first = section * together;
    const unsigned rest = item - first * tiles, beside = min(together, heads - first);
    const unsigned tile = rest / beside, behind = (heads - 1) / together - section;
    return {first + rest % beside, (behind % 2 != 0) != last_first ? tiles - 1 - tile : tile};
  }
};
// At most kItemsMax. heads: of all rows; bytes: of what the items of a head share.
inline Items items_of(int64_t heads, int64_t tiles, int64_t bytes, bool last_first) {
  const int64_t together = std::clamp<int64_t>(kCacheBytes / std::max<int64_t>(bytes, 1), 1, heads);
  return {static_cast<unsigned>(heads * tiles), static_cast<unsigned>(tiles),
          static_cast<unsigned>(heads), static_cast<unsigned>(together), last_first};
}

// The TileView of group i, at bits 2 i and 2 i + 1.
__device__ inline unsigned view_at(TileView view, int group) {
  return static_cast<unsigned>(view) << 2 * group;
}
__device__ inline TileView view_of(unsigned views, int group) {
  return static_cast<TileView>(views >> 2 * group & 3);
}

// Two groups that start their products in turn, so that those of one run while the other has its
// softmax. started[i]: of group i.
struct Turns {
  Barrier* started;
  // One thread, before the block's barrier.
  __device__ void init() const {
    for (int i = 0; i < 2; ++i) barrier_init(&started[i], kGroupThreads / 32);
  }
  // Until the other group has started as many products as come before the n-th of this one.
  __device__ void wait(int group, int n) const {
    barrier_wait(&started[1 - group], static_cast<unsigned>(n + 1 - group) % 2);
  }
  __device__ void pass(int group) const {
    if (threadIdx.x % 32 == 0) barrier_arrive(&started[group]);
  }
};

// One thread, before the block's barrier: objects for one producer and so many consumer groups.
__device__ inline void init_stages(Stage* stages, int count, int groups) {
  for (int i = 0; i < count; ++i) {
    barrier_init(&stages[i].full, 1);
    barrier_init(&stages[i].empty, static_cast<unsigned>(groups * kGroupThreads / 32));
  }
  barrier_init_fence();
}

// Starts the copies of a tile, in boxes of so many tokens; the barrier has to expect its bytes.
template <int kTokens, int kWidth, int kBoxTokens = kTokens>
__device__ void copy_tile(unsigned char* tile, const TensorMap& map, const BoxPlace& at,
                          Barrier* full) {
  using Tile = PanelTile<kTokens, kWidth>;
  WEFT_ROLLED
  for (int panel = 0; panel < Tile::kPanels; ++panel) {
    WEFT_ROLLED
    for (int token = 0; token < kTokens; token += kBoxTokens) {
      const BoxPlace box{panel * kPanelWidth, at.token + token, at.head, at.row};
      copy_box(tile + panel * Tile::kPanelBytes + token * 128, &map, box, full);
    }
  }
}

// Calls act(tile, views) for the tiles of [0, tiles) of which some group sees something, in order,
// or for one of the last if there is none: consumers tell the end of an item by a tile of the next,
// which must not wait for the item after that. look(tile) says what they see; one whole warp looks
// at 32 tiles at a time.
template <typename Look, typename Act>
__device__ void each_seen(int tiles, const Look& look, const Act& act) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  bool any = false;
  for (int first = 0; first < tiles; first += 32) {
    const unsigned own = first + lane < tiles ? look(first + lane) : 0;
    unsigned left = __ballot_sync(0xFFFFFFFFU, own != 0);
    any = any || left != 0;
    if (!any && first + 32 >= tiles) left = 1;
    for (; left != 0; left &= left - 1) {
      const int next = __ffs(static_cast<int>(left)) - 1;
      act(first + next, __shfl_sync(0xFFFFFFFFU, own, next));
    }
  }
}

// kStages stages in shared memory, through which tiles go in turn.
template <int kStages>
struct Stages {
  Stage* first;
  // Of the n-th tile: the stage that it goes through, and the parity of its phase there.
  __device__ static int index(int n) { return n % kStages; }
  __device__ static unsigned parity(int n) { return static_cast<unsigned>(n / kStages % 2); }
  __device__ Stage& operator[](int n) const { return first[index(n)]; }
  // Until the consumers of the tile before are done with the stage.
  __device__ void wait_empty(int n) const { barrier_wait(&(*this)[n].empty, parity(n) ^ 1U); }
  __device__ void wait_full(int n) const { barrier_wait(&(*this)[n].full, parity(n)); }
  // A warp is done with the n-th tile.
  __device__ void release(int n) const {
    if (threadIdx.x % 32 == 0) barrier_arrive(&(*this)[n].empty);
  }
  // After the last tile, the n-th.
  __device__ void end(int n) const {
    wait_empty(n);
    (*this)[n].turn = -1;
    barrier_arrive(&(*this)[n].full);
  }
};

// Starts sums [64, 8 kTiles] = a b^T over kWidth features: rows of `a` from `row_a` (a multiple of
// 64) on, of `b` from 0 on.
template <typename T, int kWidth, int kTokensA, int kTokensB, int kTiles>
__device__ void start_transposed(float (&sums)[kTiles][4], const unsigned char* a, int row_a,
                                 const unsigned char* b) {
  WEFT_UNROLL
  for (int k = 0; k < kWidth; k += 16) {
    const int panel = k / kPanelWidth, bytes = k % kPanelWidth * 2;
    multiply_group<T>(
        sums,
        matrix_by_rows(a + panel * PanelTile<kTokensA, kWidth>::kPanelBytes + row_a * 128 + bytes),
        matrix_by_rows(b + panel * PanelTile<kTokensB, kWidth>::kPanelBytes + bytes), k > 0);
  }
  group_commit();
}

// Starts sums [64, 8 kTiles] += a b with a [64, 16 kSteps] in fragments and b's tokens.
template <typename T, int kWidth, int kTokens, int kTiles, int kSteps>
__device__ void start_product(float (&sums)[kTiles][4], const uint32_t (&a)[kSteps][4],
                              const unsigned char* b) {
  static_assert(kTiles == kWidth / 8 && kSteps == kTokens / 16);
  WEFT_UNROLL
  for (int step = 0; step < kSteps; ++step) {
    multiply_group<T>(
        sums, a[step],
        matrix_by_columns(b + step * 16 * 128, PanelTile<kTokens, kWidth>::kPanelBytes), true);
  }
  group_commit();
}

// Accumulators as left operands.
template <typename T, int kTiles, int kSteps>
__device__ void pack(const float (&sums)[kTiles][4], uint32_t (&a)[kSteps][4]) {
  static_assert(kTiles == 2 * kSteps);
  WEFT_UNROLL
  for (int step = 0; step < kSteps; ++step) {
    const float(&low)[4] = sums[2 * step], (&high)[4] = sums[2 * step + 1];
    a[step][0] = narrow_pair<T>(low[0], low[1]);
    a[step][1] = narrow_pair<T>(low[2], low[3]);
    a[step][2] = narrow_pair<T>(high[0], high[1]);
    a[step][3] = narrow_pair<T>(high[2], high[3]);
  }
}

// Calls act.run<W>() with the least width of tiles that holds `width` features.
template <typename Act>
void with_panels(int width, const Act& act) {
  if (width <= 64) return act.template run<64>();
  act.template run<128>();
}

// A map of heads, in boxes of so many tokens. False where there is none.
template <typename T>
bool map_heads(const AttentionHeads<const T>& x, int64_t rows, int64_t heads, int64_t tokens,
               int width, int box_tokens, TensorMap& map) {
  MappedArray array;
  array.data = x.data;
  array.bfloat16 = std::is_same_v<T, bfloat16>;
  array.features = width;
  array.tokens = tokens;
  array.heads = heads;
  array.rows = rows;
  array.token_step = x.token_step;
  array.head_step = x.head_step;
  array.row_step = x.row_step;
  array.box_tokens = box_tokens;
  return make_tensor_map(array, map);
}

}  // namespace weft::cuda
