// The loops between the backward pass and the next step over flat memory: AdamW fused with clipping
// and weight decay, of fp32 numbers or of their halves (singles.h), and the sum of squares of the
// gradients. Compiled for each level of level.h like rows.h; each gives the same halves.
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
  // The same of p that is kept as `value` and `low`.
  void (*adamw_halves)(const AdamWFactors& factors, const float* g, float* m, float* v,
                       bfloat16* value, bfloat16* low, int64_t n);
  // Numbers to halves and back.
  void (*split)(const float* x, bfloat16* value, bfloat16* low, int64_t n);
  void (*join)(const bfloat16* value, const bfloat16* low, float* x, int64_t n);
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
