// The twin of kernels/cuda/limits.h for the device made of fibers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::cuda {

constexpr int64_t kBlocksMax = 12;
constexpr int64_t kMapElementsMax = 1 << 16;
constexpr int kSortTile = 16;
constexpr int64_t kColumnsMax = 2048;
constexpr int64_t kLogitBytesMax = 2048;
constexpr int64_t kLogitColumns = 16;
constexpr size_t kKeptRowBytes = 512;
constexpr int64_t kRelativeBytesMax = 8192;
constexpr int64_t kDistanceBlocks = 4;
constexpr int64_t kCacheBytes = 100000;

}  // namespace weft::cuda
