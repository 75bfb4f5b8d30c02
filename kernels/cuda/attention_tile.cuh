// Tiles of q, k, v in shared memory; internal to the attention kernels.
#pragma once

#include "kernels/cuda/attention_rules.cuh"

namespace weft::cuda {

template <typename T, int kWidth>
constexpr int kPitch = kWidth + 16 / static_cast<int>(sizeof(T));  // mma.cuh

// Rows of one head of one row of the batch.
template <typename T>
struct TokenRows {
  T* data;
  int64_t step;
};
template <typename T>
__device__ TokenRows<T> rows_of(const AttentionHeads<T>& x, int64_t row, int64_t head) {
  return {x.data + row * x.row_step + head * x.head_step, x.token_step};
}

// Starts to fill a tile [kTokens, kWidth] with tokens first, first + 1, ...; zeros past the last
// token and past `width`. The copies join the thread's open group.
template <int kTokens, int kWidth, typename T>
__device__ void load_tile(T* tile, const TokenRows<const T>& from, int64_t first, int64_t tokens,
                          int width, bool aligned) {
  constexpr int kChunk = 16 / static_cast<int>(sizeof(T)), kChunks = kWidth / kChunk;
  for (int i = static_cast<int>(threadIdx.x); i < kTokens * kChunks; i += kAttentionThreads) {
    const int token = i / kChunks, column = i % kChunks * kChunk;
    const int there = first + token < tokens ? min(kChunk, max(0, width - column)) : 0;
    const T* source = there > 0 ? from.data + (first + token) * from.step + column : from.data;
    T* to = tile + token * kPitch<T, kWidth> + column;
    if (aligned) {
      copy_16(to, source, there * static_cast<int>(sizeof(T)));
    } else {
      for (int j = 0; j < kChunk; ++j) to[j] = j < there ? source[j] : narrow<T>(0.0F);
    }
  }
}

// A matrix of 4 x 4 words, of which each lane of a quad has a row, to columns.
__device__ inline void transpose_quad(uint32_t (&words)[4]) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  WEFT_UNROLL
  for (int distance = 1; distance <= 2; distance *= 2) {
    const bool upper = (lane & distance) != 0;
    WEFT_UNROLL
    for (int i = 0; i < 4; ++i) {
      if ((i & distance) != 0) continue;
      uint32_t &low = words[i], &high = words[i + distance];
      const uint32_t other = __shfl_xor_sync(0xFFFFFFFFU, upper ? low : high, distance);
      low = upper ? other : low;
      high = upper ? high : other;
    }
  }
}

// 16 bytes a lane, for `to` and its step of multiples of 16 bytes and a width that is one of 8.
template <int kTiles, typename Out>
__device__ void store_chunks(const float (&sums)[kTiles][4], const float (&factor)[2],
                             const TokenRows<Out>& to, int64_t first, int64_t tokens, int width) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  WEFT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int64_t token = first + lane / 4 + 8 * half;
    WEFT_UNROLL
    for (int tile = 0; tile < kTiles; tile += 4) {
      uint32_t words[4];
      WEFT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float(&from)[4] = sums[tile + i];
        words[i] =
            narrow_pair<Out>(from[2 * half] * factor[half], from[2 * half + 1] * factor[half]);
      }
      transpose_quad(words);
      const int column = 8 * (tile + lane % 4);
      if (token >= tokens || column >= width) continue;
      *reinterpret_cast<uint4*>(to.data + token * to.step + column) = {words[0], words[1], words[2],
                                                                       words[3]};
    }
  }
}

template <int kTiles, typename Out>
__device__ void store_rows(const float (&sums)[kTiles][4], const float (&factor)[2],
                           const TokenRows<Out>& to, int64_t first, int64_t tokens, int width) {
  if constexpr (sizeof(Out) == 2 && kTiles % 4 == 0) {
    const auto steps = static_cast<uint64_t>(to.step) * sizeof(Out);
    if ((reinterpret_cast<uintptr_t>(to.data) | steps) % 16 == 0 && width % 8 == 0) {
      return store_chunks(sums, factor, to, first, tokens, width);
    }
  }
  const int lane = static_cast<int>(threadIdx.x % 32);
  WEFT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int64_t token = first + lane / 4 + 8 * half;
    if (token >= tokens) continue;
    Out* at = to.data + token * to.step;
    WEFT_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      WEFT_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int column = 8 * tile + 2 * (lane % 4) + i;
        if (column < width) at[column] = narrow<Out>(sums[tile][2 * half + i] * factor[half]);
      }
    }
  }
}
// Stores rows g and g + 8 of a warp's accumulators [16, kWidth], each times its factor.
template <int kTiles, typename T>
__device__ void store_rows(const float (&sums)[kTiles][4], const float (&factor)[2],
                           const AttentionResult<T>& to, int64_t row, int64_t head, int64_t first,
                           int64_t tokens, int width) {
  if (to.wide.data != nullptr) {
    store_rows(sums, factor, rows_of(to.wide, row, head), first, tokens, width);
  } else {
    store_rows(sums, factor, rows_of(to.narrow, row, head), first, tokens, width);
  }
}

template <int kTiles>
__device__ void clear(float (&sums)[kTiles][4]) {
  WEFT_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    WEFT_UNROLL
    for (int i = 0; i < 4; ++i) sums[tile][i] = 0.0F;
  }
}

// Over the four lanes that share rows of accumulators.
__device__ inline float max_of_quad(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, 2));
}
__device__ inline float sum_of_quad(float value) {
  value += __shfl_xor_sync(0xFFFFFFFFU, value, 1);
  return value + __shfl_xor_sync(0xFFFFFFFFU, value, 2);
}

template <typename T>
bool rows_aligned(const AttentionHeads<T>& x) {
  constexpr int64_t kElements = 16 / static_cast<int64_t>(sizeof(T));
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.row_step % kElements == 0 &&
         x.head_step % kElements == 0 && x.token_step % kElements == 0;
}

// Calls act.run<W>() with the least W of the widths that kernels are compiled for.
template <typename Act>
void with_width(int width, const Act& act) {
  if (width <= 32) return act.template run<32>();
  if (width <= 64) return act.template run<64>();
  if (width <= 80) return act.template run<80>();
  if (width <= 96) return act.template run<96>();
  act.template run<128>();
}

}  // namespace weft::cuda
