// Kernels that take a row at a time. The threads of a row, a warp or as many as it takes, read it
// in vectors of 16 bytes and keep it in registers, so that it comes from memory once; rows that are
// too wide for that, or not aligned, are read again. Which thread takes what, and so the order of
// sums, depends on the width and the type only, not on addresses.
#pragma once

#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/vector.cuh"

namespace weft::cuda {

constexpr int kKept = 4;               // vectors of a row that a thread keeps
constexpr unsigned kRowThreads = 512;  // of a row, at most
constexpr unsigned kRowsOfWarps = 4;   // rows of a block, where a row is a warp's

// Elements of type T in the row.
template <typename T>
dim3 row_block(int64_t width) {
  unsigned threads = kWarp;
  while (threads < kRowThreads && int64_t{threads} * kKept * kVectorWidth<T> < width) threads *= 2;
  return dim3(threads, threads == kWarp ? kRowsOfWarps : 1);
}
// Calls start.operator()<kKeep>() for rows of this width: so many vectors does a thread keep. 0:
// none, and then rows need not be aligned.
template <typename T, typename Start>
void with_kept(int64_t width, bool aligned, const Start& start) {
  constexpr int64_t kWidthMax = int64_t{kRowThreads} * kKept * kVectorWidth<T>;
  if (aligned && width <= kWidthMax) return start.template operator()<kKept>();
  start.template operator()<0>();
}

// Blocks of row_block(width), of all rows.
inline unsigned blocks_of_rows(int64_t rows, const dim3& block) { return blocks_of(rows, block.y); }
__device__ inline int64_t first_row() { return int64_t{blockIdx.x} * blockDim.y + threadIdx.y; }
__device__ inline int64_t rows_of_grid() { return int64_t{gridDim.x} * blockDim.y; }

// Calls act(k, at, count) for each vector of the row that the thread takes: its number, its first
// element, and how many elements the row has of it.
template <int kKeep, int kWide, typename Act>
__device__ void for_vectors(int64_t width, const Act& act) {
  const int64_t first = int64_t{threadIdx.x} * kWide, apart = int64_t{blockDim.x} * kWide;
  if constexpr (kKeep > 0) {
    WEFT_UNROLL
    for (int k = 0; k < kKeep; ++k) {
      if (first + k * apart < width) act(k, first + k * apart, kWide);
    }
  } else {
    for (int64_t at = first; at < width; at += apart) {
      act(0, at, static_cast<int>(min(width - at, int64_t{kWide})));
    }
  }
}

// Whether rows of this width in all of these arrays (null: not there) can be taken in vectors.
template <typename T, typename... Arrays>
bool rows_take_vectors(int64_t width, const Arrays*... arrays) {
  return width % kVectorWidth<T> == 0 && (takes_vectors(arrays) && ...);
}

// The reduction over the threads of the row, in each of them. All threads of the block call it.
template <typename Operation>
__device__ float row_reduce(float value, float* partials) {
  if (blockDim.x == kWarp) return warp_reduce<Operation>(value);
  return block_reduce<Operation>(value, partials);
}

}  // namespace weft::cuda
