// The loops between the backward pass and the next step over flat fp32 memory: AdamW fused with
// clipping, weight decay and the rounding to a half type, and the sum of squares of the gradients.
// Compiled for each level of level.h like rows.h.
//
// Thread safety: pure functions over memory of the caller's.
#pragma once

#include <cstdint>

#include "kernels/cpu/level.h"
#include "kernels/tensor/half.h"

namespace weft::cpu {

// g' = scale g;  m = beta1 m + rest1 g';  v = beta2 v + rest2 g'^2
// p = keep p - step m / (sqrt(v) root + epsilon)
struct AdamWFactors {
  float scale, beta1, beta2, rest1, rest2, keep, step, root, epsilon;
};

struct UpdateKernels {
  void (*adamw)(const AdamWFactors& factors, const float* g, float* m, float* v, float* p,
                int64_t n);
  // The same; y := p, rounded as convert.h does. y is not left in the caches.
  void (*adamw_bf16)(const AdamWFactors& factors, const float* g, float* m, float* v, float* p,
                     bfloat16* y, int64_t n);
  // Added up in double, over a fixed number of lanes.
  double (*sum_of_squares)(const float* x, int64_t n);
  float (*largest)(const float* x, int64_t n);  // |x|; NaN where there is one; 0 for n 0
  // Each square rounded to a multiple of `first`'s last place is added to *a, what is left of it,
  // rounded to a multiple of `second`'s, to *b. Exact as long as sums stay below first / 3 and
  // second / 3.
  void (*cut_squares)(const float* x, int64_t n, double first, double second, double* a, double* b);
};

const UpdateKernels& update();
const UpdateKernels& update_at(Level level);  // for tests

}  // namespace weft::cpu
