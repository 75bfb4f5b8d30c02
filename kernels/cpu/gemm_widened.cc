#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/gemm_libraries.h"

namespace weft::cpu {
namespace {

// The stored rows of an operand in fp32, contiguous; rows and columns as the product sees them.
Matrix<float> widened(const Matrix<bfloat16>& x, int64_t rows, int64_t columns,
                      std::vector<float>& values) {
  const int64_t stored_rows = x.transposed ? columns : rows, width = x.transposed ? rows : columns;
  values.resize(static_cast<size_t>(stored_rows * width));
  for (int64_t row = 0; row < stored_rows; ++row) {
    widen(x.data + row * x.row_stride, values.data() + row * width, width);
  }
  return {values.data(), width, x.transposed};
}

}  // namespace

void multiply_widened(const Product<bfloat16, float>& p, GemmLibrary fp32) {
  thread_local std::vector<float> a, b;
  const Product<float> wide{p.m,
                            p.n,
                            p.k,
                            widened(p.a, p.m, p.k, a),
                            widened(p.b, p.k, p.n, b),
                            p.out,
                            p.out_stride,
                            p.accumulate,
                            p.factor};
  fp32 == GemmLibrary::kOneDnn ? multiply_onednn(wide) : multiply_openblas(wide);
}

void multiply_widened(const Product<bfloat16>& p, GemmLibrary fp32) {
  thread_local std::vector<float> sums;
  sums.resize(static_cast<size_t>(p.m * p.n));
  for (int64_t row = 0; row < p.m && p.accumulate; ++row) {
    widen(p.out + row * p.out_stride, sums.data() + row * p.n, p.n);
  }
  const Product<bfloat16, float> unrounded{p.m,         p.n, p.k,          p.a,     p.b,
                                           sums.data(), p.n, p.accumulate, p.factor};
  multiply_widened(unrounded, fp32);
  for (int64_t row = 0; row < p.m; ++row) {
    round(sums.data() + row * p.n, p.out + row * p.out_stride, p.n);
  }
}

}  // namespace weft::cpu
