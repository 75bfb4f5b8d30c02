// The inner loops of the hot ops over contiguous rows, compiled for each level of x86-64 (v2, v3,
// v4, those of bf16 also v4 with AVX512_BF16) and chosen once by what the processor has. One
// source: rows_body.h.
//
// Thread safety: pure functions. Invariants: 1. the result for a row depends on its elements and
// its length only, not on its address. 2. sums over a row use a fixed number of lanes.
#pragma once

#include <cstdint>

#include "kernels/cpu/past_caches.h"
#include "kernels/cpu/wide.h"
#include "kernels/tensor/half.h"

namespace weft::cpu {

enum class Curve : uint8_t { kGeluTanh, kGeluErf, kRelu, kSilu, kTanh, kSigmoid };

// n: elements of a row. Rows do not overlap unless the same pointer is handed in twice.
template <typename T>
struct RowKernels {
  void (*curve)(Curve curve, const T* x, Target<T> y, int64_t n);
  void (*curve_backward)(Curve curve, const T* x, const T* dy, Target<T> dx, int64_t n);
  // The same of `rows` rows, one after the other, and sums += each of dx.
  void (*curve_backward_sum)(Curve curve, const T* x, const T* dy, Target<T> dx, T* sums,
                             int64_t rows, int64_t n);
  T (*log_sum_exp)(const T* x, int64_t n);
  // y = factor * exp(x - shift); returns the sum of y.
  T (*exp_shifted)(const T* x, T shift, T factor, T* y, int64_t n);
  T (*sum)(const T* x, int64_t n);
  T (*dot)(const T* a, const T* b, int64_t n);
  T (*max)(const T* x, int64_t n);  // -infinity for n 0
  void (*scale)(T factor, T* x, int64_t n);
  void (*add)(const T* x, T* y, int64_t n);  // y += x
  // y += each of `rows` rows of x, `stride` apart, one after the other.
  void (*add_rows)(const T* x, int64_t stride, int64_t rows, T* y, int64_t n);
  void (*multiply)(const T* x, T* y, int64_t n);  // y *= x
  // keep[i] = kept_at({seed, stream}, first + i, dropped) ? kept : 0 (kernels/ops/random.h).
  void (*draw_kept)(uint64_t seed, uint64_t stream, uint64_t first, int dropped, T kept, T* keep,
                    int64_t n);
  // y = x * keep of draw_kept; 0 where it is, whatever x is.
  void (*drop)(uint64_t seed, uint64_t stream, uint64_t first, int dropped, T kept, const T* x,
               bool past, T* y, int64_t n);
  // ds = p * (dp - delta), the gradient of softmax at p.
  void (*softmax_gradient)(const T* p, const T* dp, T delta, T factor, T* ds, int64_t n);
};

// Of bf16 as it lies, computed in float, or as exactly as bf16 tells (math_avx512_body.h,
// gelu_avx512_body.h); sums are those of what is not yet rounded.
template <>
struct RowKernels<bfloat16> {
  void (*curve)(Curve curve, const bfloat16* x, Target<bfloat16> y, int64_t n);
  void (*curve_backward)(Curve curve, const bfloat16* x, const bfloat16* dy, Target<bfloat16> dx,
                         int64_t n);
  void (*curve_backward_sum)(Curve curve, const bfloat16* x, const bfloat16* dy,
                             Target<bfloat16> dx, float* sums, int64_t rows, int64_t n);
  void (*drop)(uint64_t seed, uint64_t stream, uint64_t first, int dropped, float kept,
               const bfloat16* x, bool past, bfloat16* y, int64_t n);
};

template <typename T>
const RowKernels<T>& rows();

}  // namespace weft::cpu
