// Arrays of many sizes in one launch: each is cut into pieces of the same size, and a table in the
// kernel's parameters says whose each piece is.
//
// Invariants: 1. which pieces there are depends on the sizes only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace weft::cuda {

constexpr int64_t kPieceElements = 1 << 14;

inline int64_t pieces_of(int64_t elements) {
  return (elements + kPieceElements - 1) / kPieceElements;
}

// Of kArrays arrays at most; a launch's parameters are 4 KB at most.
template <typename Array, int kArrays>
struct PieceTable {
  int count = 0;
  int64_t first[kArrays + 1] = {};  // the first piece of each, and how many there are
  Array array[kArrays] = {};
  bool add(const Array& next, int64_t elements) {
    if (count == kArrays) return false;
    array[count] = next;
    first[count + 1] = first[count] + pieces_of(elements);
    ++count;
    return true;
  }
  int64_t pieces() const { return first[count]; }
  // The array that has the piece.
  __device__ int owner_of(int64_t piece) const {
    int low = 0, high = count;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (first[middle] <= piece) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

}  // namespace weft::cuda
