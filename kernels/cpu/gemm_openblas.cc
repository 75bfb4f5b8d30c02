#include <cblas.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cpu/gemm_libraries.h"
#include "proto/base/check.h"

// OpenBLAS's own, of no header: a buffer of a product, and its end. It keeps what it once had.
extern "C" {
void* blas_memory_alloc(int unused);
void blas_memory_free(void* buffer);
}

namespace weft::cpu {
namespace {

void use_one_thread() {
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

template <typename T, typename F>
void call(const Product<T>& p, F&& gemm) {
  use_one_thread();
  gemm(CblasRowMajor, p.a.transposed ? CblasTrans : CblasNoTrans,
       p.b.transposed ? CblasTrans : CblasNoTrans, blas_size(p.m), blas_size(p.n), blas_size(p.k),
       p.factor, p.a.data, blas_size(std::max<int64_t>(p.a.row_stride, 1)), p.b.data,
       blas_size(std::max<int64_t>(p.b.row_stride, 1)), p.accumulate ? T{1} : T{0}, p.out,
       blas_size(p.out_stride));
}

}  // namespace

void reserve_openblas(int threads) {
  std::vector<void*> buffers(static_cast<size_t>(threads));
  for (void*& buffer : buffers) buffer = blas_memory_alloc(0);
  for (void* buffer : buffers) blas_memory_free(buffer);
}

void multiply_openblas(const Product<float>& product) { call(product, cblas_sgemm); }
void multiply_openblas(const Product<double>& product) { call(product, cblas_dgemm); }

}  // namespace weft::cpu
