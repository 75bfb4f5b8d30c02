// The inner loops of the norms and softmaxes of whole rows, and of their gradients, compiled for
// each level of x86-64 and chosen as those of rows.h are. One source: norms_body.h.
//
// S is what rows lie in: float, double or bfloat16. They are computed in W, to which halves are
// widened in registers; results are rounded once, as convert.h does.
//
// Thread safety: pure functions. Invariants: 1. the result for a row depends on its elements and
// its length only, not on its address. 2. sums over a row use a fixed number of lanes. 3. of halves
// it is the rounded result for the same row in float; where an exponential is in it, with AVX-512
// one that is off by up to 2^-12 of it before it is rounded.
#pragma once

#include <cstdint>

#include "kernels/cpu/wide.h"

namespace weft::cpu {

// n: elements of a row. rows: so many, one after the other, each with its mean and rstd; 1 where it
// is left out. past: results go past the caches (past_caches.h).
template <typename S>
struct NormKernels {
  using W = Wide<S>;
  // y = (x - mean) * rstd * gamma + beta with the biased variance (Ba et al. 2016).
  void (*layer_norm)(const S* x, const W* gamma, const W* beta, W epsilon, bool past, int64_t rows,
                     int64_t n, S* y, W* mean, W* rstd);
  // dgamma and dbeta are added to, in the rows' order.
  void (*layer_norm_backward)(const S* x, const S* dy, const W* gamma, const W* mean, const W* rstd,
                              bool past, int64_t rows, int64_t n, S* dx, W* dgamma, W* dbeta);
  // y = x * rstd * gamma, rstd = 1 / sqrt(mean(x^2) + epsilon) (Zhang and Sennrich 2019)
  void (*rms_norm)(const S* x, const W* gamma, W epsilon, bool past, int64_t rows, int64_t n, S* y,
                   W* rstd);
  // As layer_norm_backward.
  void (*rms_norm_backward)(const S* x, const S* dy, const W* gamma, const W* rstd, bool past,
                            int64_t rows, int64_t n, S* dx, W* dgamma);
  // exponentials: room for those of a row, up to a multiple of 32, before they are divided by their
  // sum; not touched where y is of W and not past the caches, as they stand there then.
  void (*softmax)(const S* x, W* exponentials, bool past, int64_t rows, int64_t n, S* y);
  void (*softmax_backward)(const S* y, const S* dy, bool past, int64_t n, S* dx);
  void (*log_softmax)(const S* x, bool past, int64_t rows, int64_t n, S* y);
  void (*log_softmax_backward)(const S* y, const S* dy, bool past, int64_t n, S* dx);
};

// Of float, double and bfloat16.
template <typename S>
const NormKernels<S>& norms();

}  // namespace weft::cpu
