#include "kernels/cpu/gemm.h"

#include <cblas.h>

#include <algorithm>
#include <limits>

#include "proto/base/check.h"

namespace weft::cpu {
namespace {

void use_one_blas_thread() {
  static const bool done = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(done);
}

int blas_size(int64_t size) {
  WEFT_CHECK(size <= std::numeric_limits<int>::max(), "a matrix side of {}", size);
  return static_cast<int>(size);
}

template <typename T>
void blas(int64_t m, int64_t n, int64_t k, Matrix<T> a, Matrix<T> b, T* out, int64_t out_stride,
          bool accumulate, T factor) {
  const CBLAS_TRANSPOSE ta = a.transposed ? CblasTrans : CblasNoTrans;
  const CBLAS_TRANSPOSE tb = b.transposed ? CblasTrans : CblasNoTrans;
  const T keep = accumulate ? T{1} : T{0};
  const int mi = blas_size(m), ni = blas_size(n), ki = blas_size(k);
  const int lda = blas_size(std::max<int64_t>(a.row_stride, 1));
  const int ldb = blas_size(std::max<int64_t>(b.row_stride, 1));
  const int ldc = blas_size(out_stride);
  if constexpr (sizeof(T) == 4) {
    cblas_sgemm(CblasRowMajor, ta, tb, mi, ni, ki, factor, a.data, lda, b.data, ldb, keep, out,
                ldc);
  } else {
    cblas_dgemm(CblasRowMajor, ta, tb, mi, ni, ki, factor, a.data, lda, b.data, ldb, keep, out,
                ldc);
  }
}

template <typename T>
void merge_blocks(ThreadPool& pool, Allocator& allocator, int64_t blocks, int64_t first,
                  int64_t last, int64_t m, int64_t n, int64_t k, Matrix<T> a, Matrix<T> b, T* out) {
  if (last - first == 1) {
    const int64_t begin = block_start(k, blocks, first), end = block_start(k, blocks, last);
    a.data += begin * (a.transposed ? a.row_stride : 1);
    b.data += begin * (b.transposed ? 1 : b.row_stride);
    gemm(pool, m, n, end - begin, a, b, out, n);
    return;
  }
  const int64_t middle = first + (last - first + 1) / 2;
  merge_blocks(pool, allocator, blocks, first, middle, m, n, k, a, b, out);
  const size_t bytes = static_cast<size_t>(m * n) * sizeof(T);
  T* other = static_cast<T*>(allocator.allocate(bytes));
  merge_blocks(pool, allocator, blocks, middle, last, m, n, k, a, b, other);
  pool.parallel_for(m * n, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] += other[i];
  });
  allocator.release(other, bytes);
}

}  // namespace

template <typename T>
void gemm(ThreadPool& pool, int64_t m, int64_t n, int64_t k, Matrix<T> a, Matrix<T> b, T* out,
          int64_t out_stride, bool accumulate, T factor) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    for (int64_t row = 0; row < m && !accumulate; ++row)
      std::fill_n(out + row * out_stride, n, T{0});
    return;
  }
  use_one_blas_thread();
  // Tiles along the longer side, in units that the kernels of the library like.
  constexpr int64_t kUnit = 16;
  const int64_t side = std::max(m, n), other = std::min(m, n);
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 18) / (other * k * kUnit));
  pool.parallel_for((side + kUnit - 1) / kUnit, grain, [&](int64_t begin, int64_t end) {
    const int64_t from = begin * kUnit, length = std::min(side, end * kUnit) - from;
    Matrix<T> part_a = a, part_b = b;
    if (m >= n) {
      part_a.data += from * (a.transposed ? 1 : a.row_stride);
      blas(length, n, k, part_a, part_b, out + from * out_stride, out_stride, accumulate, factor);
    } else {
      part_b.data += from * (b.transposed ? b.row_stride : 1);
      blas(m, length, k, part_a, part_b, out + from, out_stride, accumulate, factor);
    }
  });
}

template <typename T>
void gemm_in_blocks(ThreadPool& pool, Allocator& allocator, int blocks, int64_t m, int64_t n,
                    int64_t k, Matrix<T> a, Matrix<T> b, T* out) {
  if (blocks <= 1 || m == 0 || n == 0) {
    gemm(pool, m, n, k, a, b, out, n);
  } else {
    merge_blocks<T>(pool, allocator, blocks, 0, blocks, m, n, k, a, b, out);
  }
}

template void gemm(ThreadPool&, int64_t, int64_t, int64_t, Matrix<float>, Matrix<float>, float*,
                   int64_t, bool, float);
template void gemm(ThreadPool&, int64_t, int64_t, int64_t, Matrix<double>, Matrix<double>, double*,
                   int64_t, bool, double);
template void gemm_in_blocks(ThreadPool&, Allocator&, int, int64_t, int64_t, int64_t, Matrix<float>,
                             Matrix<float>, float*);
template void gemm_in_blocks(ThreadPool&, Allocator&, int, int64_t, int64_t, int64_t,
                             Matrix<double>, Matrix<double>, double*);

}  // namespace weft::cpu
