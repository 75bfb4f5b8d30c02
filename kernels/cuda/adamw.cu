// One update of AdamW (Loshchilov and Hutter 2019) over a flat array, in the formula and the order
// of operations of worker/optimizer. Numerical policy: fp32 parameters, moments and arithmetic;
// gradients are widened; the working copy is the new parameter, rounded once.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

template <typename G, typename W>
__global__ void adamw_kernel(AdamWConstants c, const float* factor, const G* g, float* p, float* m,
                             float* v, W* working, int64_t n) {
  const float scale = c.gradient_scale * (factor == nullptr ? 1.0F : *factor);
  const bool finite = isfinite(scale);  // an overflow under a loss scale: the step is left out
  for (int64_t i = first_element(); i < n && finite; i += elements_of_grid()) {
    const float value = widen(g[i]) * scale;
    const float first = c.beta1 * m[i] + c.rest1 * value;
    const float second = c.beta2 * v[i] + c.rest2 * value * value;
    m[i] = first;
    v[i] = second;
    p[i] = c.keep * p[i] - c.step * first / (sqrtf(second) * c.root + c.epsilon);
    if (working != nullptr) working[i] = narrow<W>(p[i]);
  }
}

}  // namespace

template <typename G, typename W>
void adamw(const AdamWConstants& constants, const float* factor, const G* g, float* p, float* m,
           float* v, W* working, int64_t n, cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, adamw_kernel<G, W>, constants, factor, g, p, m, v, working,
         n);
}

#define WEFT_INSTANTIATE(G, W)                                                                     \
  template void adamw<G, W>(const AdamWConstants&, const float*, const G*, float*, float*, float*, \
                            W*, int64_t, cudaStream_t);
WEFT_INSTANTIATE(float, float)
WEFT_INSTANTIATE(float, bfloat16)
WEFT_INSTANTIATE(float, float16)
WEFT_INSTANTIATE(bfloat16, bfloat16)
WEFT_INSTANTIATE(float16, float16)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
