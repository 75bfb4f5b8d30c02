// How large grids and tiles get. The tests' harness has a twin of this file with smaller ones, so
// that few elements are enough to make its threads walk on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::cuda {

// Kernels walk on by the grid's size. So many that blocks that start late do not leave the device
// half idle at the end.
constexpr int64_t kBlocksMax = 1 << 16;
constexpr int64_t kMapElementsMax = int64_t{1} << 31;  // of one launch of an elementwise kernel
constexpr int kSortTile = 1024;  // elements that a block sorts in shared memory
// Elements of the columns of a convolution that are there at once, about, and of its samples'
// gradients.
constexpr int64_t kColumnsMax = int64_t{1} << 26;
// Bytes of a language model's logits that are there at once, about (worker/admission/memory.cc
// counts them), the unit of their columns, and of a row that a block keeps in shared memory: two
// such blocks fit an SM of sm_90a.
constexpr int64_t kLogitBytesMax = int64_t{1} << 30;
constexpr int64_t kLogitColumns = 64;
constexpr size_t kKeptRowBytes = size_t{112} << 10;
// Bytes of scores by distance that are there at once, about (worker/admission/memory.cc counts
// them): in tiles of 128 x 128 floats four for each multiprocessor of an H200, and no more than
// its L2 cache holds until they are in their places.
constexpr int64_t kRelativeBytesMax = int64_t{32} << 20;
constexpr int64_t kDistanceBlocks = 512;   // that sum up attention's gradients by distance, about
constexpr int64_t kCacheBytes = 24 << 20;  // of the L2 cache, for what several blocks read

}  // namespace weft::cuda
