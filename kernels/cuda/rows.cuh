// Kernels that take a row at a time. The threads of a row, a warp or as many as it takes, read it
// in vectors of 16 bytes and keep it in registers, so that it comes from memory once; rows that are
// too wide for that, or not aligned, are read again. Which thread takes what, and so the order of
// sums, depends on the width and the type only, not on addresses.
#pragma once

#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/vector.cuh"

namespace weft::cuda {

constexpr int kKept = 8;               // vectors of a row that a thread keeps, at most
constexpr unsigned kRowThreads = 256;  // of a row, at most
constexpr unsigned kRowsOfWarps = 4;   // rows of a block, where a row is a warp's

// Elements of type T in the row: as few threads as keep it, because what is done for a row and not
// for its elements counts once a thread.
template <typename T>
dim3 row_block(int64_t width) {
  unsigned threads = kWarp;
  while (threads < kRowThreads && int64_t{threads} * kKept * kVectorWidth<T> < width) threads *= 2;
  return dim3(threads, threads == kWarp ? kRowsOfWarps : 1);
}
// Calls start.operator()<kKeep, kThreads>() for rows of this width: so many threads, each of which
// keeps so many vectors; constants, so that places follow from each other. 0, 0: none is kept, and
// then rows need not be aligned.
template <typename T, typename Start>
void with_kept(int64_t width, bool aligned, const Start& start) {
  const unsigned threads = row_block<T>(width).x;
  if (!aligned || width > int64_t{threads} * kKept * kVectorWidth<T>) {
    return start.template operator()<0, 0>();
  }
  if (width <= int64_t{kWarp} * kKept / 2 * kVectorWidth<T>) {
    return start.template operator()<kKept / 2, kWarp>();
  }
  if (threads == kWarp) return start.template operator()<kKept, kWarp>();
  if (threads == 2 * kWarp) return start.template operator()<kKept, 2 * kWarp>();
  if (threads == 4 * kWarp) return start.template operator()<kKept, 4 * kWarp>();
  start.template operator()<kKept, kRowThreads>();
}

// Blocks of row_block(width), of all rows.
inline unsigned blocks_of_rows(int64_t rows, const dim3& block) { return blocks_of(rows, block.y); }
__device__ inline int64_t first_row() { return int64_t{blockIdx.x} * blockDim.y + threadIdx.y; }
__device__ inline int64_t rows_of_grid() { return int64_t{gridDim.x} * blockDim.y; }

// Calls act(k, at, count, loaded) for each vector of the row that the thread takes: its number, its
// first element, how many elements the row has of it, and what load(at, count) gives; a few loads
// are under way together.
template <int kKeep, int kThreads, int kWide, typename Load, typename Act>
__device__ void for_loaded_vectors(int64_t width, const Load& load, const Act& act) {
  if constexpr (kKeep > 0) {
    using Loaded = decltype(load(int64_t{}, 0));
    constexpr int kAccesses = (sizeof(Loaded) + kAccessBytes - 1) / kAccessBytes;
    constexpr int kApart = kThreads * kWide,
                  kBatch = (kKeep == kKept ? 2 : 4) / (kAccesses > 2 ? 2 : 1);
    const int first = static_cast<int>(threadIdx.x) * kWide, end = static_cast<int>(width);
    WEFT_UNROLL
    for (int k = 0; k < kKeep; k += kBatch) {
      Loaded loaded[kBatch];
      WEFT_UNROLL
      for (int u = 0; u < kBatch; ++u) {
        const int at = first + (k + u) * kApart;
        if (at < end) loaded[u] = load(at, kWide);
      }
      WEFT_UNROLL
      for (int u = 0; u < kBatch; ++u) {
        const int at = first + (k + u) * kApart;
        if (at < end) act(k + u, at, kWide, loaded[u]);
      }
    }
  } else {
    const int64_t apart = int64_t{blockDim.x} * kWide;
    for (int64_t at = int64_t{threadIdx.x} * kWide; at < width; at += apart) {
      const int count = static_cast<int>(min(width - at, int64_t{kWide}));
      act(0, at, count, load(at, count));
    }
  }
}
// Calls act(k, at, count).
template <int kKeep, int kThreads, int kWide, typename Act>
__device__ void for_vectors(int64_t width, const Act& act) {
  for_loaded_vectors<kKeep, kThreads, kWide>(
      width, [](int64_t, int) { return 0; },
      [&](int k, int64_t at, int count, int) { act(k, at, count); });
}

// Whether rows of this width in all of these arrays (null: not there) can be taken in vectors.
template <typename T, typename... Arrays>
bool rows_take_vectors(int64_t width, const Arrays*... arrays) {
  return width % kVectorWidth<T> == 0 && (takes_vectors(arrays) && ...);
}

// The reduction over the threads of the row (0: blockDim.x), in each of them. All threads of the
// block call it.
template <typename Operation, int kThreads>
__device__ float row_reduce(float value, float* partials) {
  const int threads = kThreads > 0 ? kThreads : static_cast<int>(blockDim.x);
  if (threads == kWarp) return warp_reduce<Operation>(value);
  return block_reduce<Operation>(value, partials);
}

}  // namespace weft::cuda
