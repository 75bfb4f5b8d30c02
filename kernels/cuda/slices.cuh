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

}  // namespace weft::cuda
