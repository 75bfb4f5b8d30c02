// Sums over many rows, cut into slices so that enough blocks work: which rows a slice holds depends
// on the number of rows only, and slices are added in order, so the bits are the same every time.
#pragma once

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace weft::cuda {

constexpr int kTileRows = 8;         // chains of rows that a block of kWarp columns adds at once
constexpr int64_t kSliceRows = 256;  // columns: rows of a slice
constexpr int64_t kSliceElements = 8192;  // inner == 1: elements of a slice

inline int64_t slices_of(int64_t extent, int64_t inner) {
  const int64_t each = inner == 1 ? kSliceElements : kSliceRows;
  return extent == 0 ? 1 : (extent + each - 1) / each;
}

// A part of the tree: the blocks [first, last), or the two sums on top, which are to be merged.
struct Pending {
  int64_t first, last;
  bool merges;
};
// The sum of sum_of_block(i) of at least one block, in the tree that halves them, the larger half
// first. All threads that sum_of_block() brings together call it.
template <typename SumOfBlock>
__device__ float sum_of_tree(int64_t blocks, const SumOfBlock& sum_of_block) {
  Pending pending[64];
  float sums[64];
  int tasks = 0, depth = 0;
  pending[tasks++] = {0, blocks, false};
  while (tasks > 0) {
    const Pending task = pending[--tasks];
    if (task.merges) {
      --depth;
      sums[depth - 1] += sums[depth];
    } else if (task.last - task.first == 1) {
      sums[depth++] = sum_of_block(task.first);
    } else {
      const int64_t middle = task.first + (task.last - task.first + 1) / 2;
      pending[tasks++] = {0, 0, true};
      pending[tasks++] = {middle, task.last, false};
      pending[tasks++] = {task.first, middle, false};
    }
  }
  return sums[0];
}

}  // namespace weft::cuda
