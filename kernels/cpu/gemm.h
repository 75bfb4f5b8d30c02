// Matrix products over OpenBLAS, which runs single-threaded on tiles handed out by our pool.
//
// Thread safety: gemm from the rank's compute thread; called from inside a parallel_for body it
// runs on that thread. OpenBLAS is set to one thread at the first call. Invariants: 1. the tiles,
// and so the result, depend on the sizes and the pool's size only.
#pragma once

#include <cstdint>

#include "kernels/tensor/allocator.h"
#include "kernels/tensor/thread_pool.h"

namespace weft::cpu {

// A row-major matrix; transposed: the product uses data as if rows were columns.
template <typename T>
struct Matrix {
  const T* data = nullptr;
  int64_t row_stride = 0;  // elements from one stored row to the next
  bool transposed = false;
};

// out[m, n] := factor * (a b)[m, n] + (accumulate ? out[m, n] : 0), a [m, k] and b [k, n] after
// their transposition.
template <typename T>
void gemm(ThreadPool& pool, int64_t m, int64_t n, int64_t k, Matrix<T> a, Matrix<T> b, T* out,
          int64_t out_stride, bool accumulate = false, T factor = T{1});

// The same with k cut into `blocks` parts, each a product of its own, merged in one fixed binary
// tree. blocks <= 1: gemm. out [m, n] is contiguous.
template <typename T>
void gemm_in_blocks(ThreadPool& pool, Allocator& allocator, int blocks, int64_t m, int64_t n,
                    int64_t k, Matrix<T> a, Matrix<T> b, T* out);

// Where block `index` of `count` over [0, whole) starts; the first ones are larger by one.
constexpr int64_t block_start(int64_t whole, int64_t count, int64_t index) {
  const int64_t rest = whole % count;
  return whole / count * index + (index < rest ? index : rest);
}

}  // namespace weft::cpu
