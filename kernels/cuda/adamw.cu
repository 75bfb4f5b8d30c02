// One update of AdamW (Loshchilov and Hutter 2019) over a flat array, in the formula and the order
// of operations of worker/optimizer. Numerical policy: fp32 parameters, moments and arithmetic.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace weft::cuda {
namespace {

__global__ void adamw_kernel(AdamWConstants c, const float* g, float* p, float* m, float* v,
                             int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const float value = g[i] * c.gradient_scale;
    const float first = c.beta1 * m[i] + c.rest1 * value;
    const float second = c.beta2 * v[i] + c.rest2 * value * value;
    m[i] = first;
    v[i] = second;
    p[i] = c.keep * p[i] - c.step * first / (sqrtf(second) * c.root + c.epsilon);
  }
}

}  // namespace

void adamw(const AdamWConstants& constants, const float* g, float* p, float* m, float* v, int64_t n,
           cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, adamw_kernel, constants, g, p, m, v, n);
}

}  // namespace weft::cuda
