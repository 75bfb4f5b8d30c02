// The inner loops of the elementwise ops and of the norms that work on parts of rows, compiled for
// each level of x86-64 and chosen as those of rows.h are. One source: vectors_body.h.
//
// Thread safety: pure functions. Invariants: 1. what an element becomes depends on the elements at
// its place only, not on its address or on where the row was cut. 2. sums over a row use a fixed
// number of lanes.
#pragma once

#include <cstdint>

#include "kernels/cpu/past_caches.h"
#include "kernels/cpu/wide.h"
#include "kernels/tensor/half.h"

namespace weft::cpu {

// Functions of x; a and b are their parameters.
enum class Unary : uint8_t {
  kNegate,
  kAbs,
  kExp,
  kLog,
  kSqrt,
  kRsqrt,
  kSquare,
  kPower,        // x^a
  kClamp,        // to [a, b]
  kSoftplus,     // log(1 + e^x)
  kLeakyRelu,    // x < 0: a x
  kElu,          // x < 0: a (e^x - 1)
  kHardSigmoid,  // clamp(x / 6 + 1 / 2, 0, 1)
  kHardSwish,    // x hard_sigmoid(x)
  kQuickGelu,    // x sigmoid(1.702 x)
  kEluPlusOne,   // x < 0: e^x, else x + 1
};

enum class Binary : uint8_t { kAdd, kSubtract, kMultiply, kDivide, kMinimum, kMaximum };

enum class Compare : uint8_t { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual };

// n: elements of a row. Steps are 0 (the first element for all) or 1. bf16 is taken as it lies,
// computed in float, each result rounded once; on AVX-512 SwiGLU's gate is only as exact as bf16
// tells (math_avx512_body.h).
template <typename S>
struct ElementKernels {
  using T = Wide<S>;
  void (*unary)(Unary kind, T a, T b, const S* x, Target<S> y, int64_t n);
  void (*unary_backward)(Unary kind, T a, T b, const S* x, const S* dy, Target<S> dx, int64_t n);
  void (*binary)(Binary kind, const S* x, int64_t step_x, const S* y, int64_t step_y, Target<S> z,
                 int64_t n);
  void (*scale)(T factor, const S* x, int64_t step, Target<S> y, int64_t n);
  // The gradients of x and y, of which the larger or the smaller was taken: dy to the one it was,
  // half of it to each where they are equal, all of it to both where one is NaN.
  void (*extreme_backward)(bool larger, const S* x, const S* y, const S* dy, Target<S> to_x,
                           Target<S> to_y, int64_t n);
  // z = mask ? x : y
  void (*where)(const uint8_t* mask, int64_t step_mask, const S* x, int64_t step_x, const S* y,
                int64_t step_y, S* z, int64_t n);
  // y = silu(gate) * up (Shazeer 2020)
  void (*swiglu)(const S* gate, const S* up, Target<S> y, int64_t n);
  void (*swiglu_backward)(const S* gate, const S* up, const S* dy, Target<S> dgate, Target<S> dup,
                          int64_t n);
  // The sum of x, and of the squares of what x is apart from its mean; n >= 1.
  void (*moments)(const S* x, int64_t n, T* sum, T* squares);
  // Sums of dy and of dy * (x - mean) * rstd.
  void (*gradient_sums)(const S* x, const S* dy, T mean, T rstd, int64_t n, T* sum_dy, T* sum_hat);
  // (x - shift) * factor + offset
  void (*affine)(const S* x, T shift, T factor, T offset, Target<S> y, int64_t n);
  // dx = factor * dy + (x - mean) * slope + offset
  void (*norm_gradient)(const S* x, const S* dy, T factor, T mean, T slope, T offset, Target<S> dx,
                        int64_t n);
  // Of each element the sum of those up to it or, reversed, from it on; in double.
  void (*running_sums)(bool reversed, const S* x, Target<S> y, int64_t n);
  // sums += x, and that is y. What lies `ahead` elements further is fetched.
  void (*add_to_running)(const S* x, int64_t ahead, double* sums, Target<S> y, int64_t n);
};

template <typename T>
struct VectorKernels : ElementKernels<T> {
  void (*compare)(Compare kind, const T* x, int64_t step_x, const T* y, int64_t step_y, uint8_t* z,
                  int64_t n);
  // Pairs (even[i], odd[i]) turned by an angle: even cos - odd sin, odd cos + even sin; direction
  // -1: turned back. What lies `ahead` elements further is fetched, as it is to be turned soon.
  void (*rotate)(const T* even, const T* odd, const T* cos, const T* sin, T direction,
                 int64_t ahead, Target<T> to_even, Target<T> to_odd, int64_t n);
  void (*rotate_pairs)(const T* x, const T* cos, const T* sin, T direction, T* y,
                       int64_t n);                    // n pairs side by side
  T (*extreme)(bool largest, const T* x, int64_t n);  // NaN where one is; n >= 1
};
template <>
struct VectorKernels<bfloat16> : ElementKernels<bfloat16> {};

template <typename T>
const VectorKernels<T>& vectors();

}  // namespace weft::cpu
