// Scores v . tanh(q + k) of every pair of query and key, and their gradients. Numerical policy:
// fp32; a score is summed by a warp; gradients of a query and of v run over the keys and those of a
// key over the queries, in their order, so that the bits are the same every time.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

// A warp a pair.
template <typename T>
__global__ void compared_kernel(ComparedShape shape, const T* q, const T* k, const T* v, T* scores,
                                int64_t pairs) {
  const int64_t warps = elements_of_grid() / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t pair = first_element() / kWarp; pair < pairs; pair += warps) {
    const int64_t query = pair / shape.keys;
    const int64_t key = query / shape.queries * shape.keys + pair % shape.keys;
    float total = 0.0F;
    for (int64_t a = lane; a < shape.features; a += kWarp) {
      total += widen(v[a]) *
               tanhf(widen(q[query * shape.features + a]) + widen(k[key * shape.features + a]));
    }
    total = warp_reduce<Add>(total);
    if (lane == 0) scores[pair] = narrow<T>(total);
  }
}

// dq, and by query what adds up to dv.
template <typename T>
__global__ void compared_queries_kernel(ComparedShape shape, const T* q, const T* k, const T* v,
                                        const T* dscores, T* dq, float* dv) {
  const int64_t n = shape.rows * shape.queries * shape.features;
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t query = i / shape.features, a = i % shape.features;
    const T* key = k + query / shape.queries * shape.keys * shape.features + a;
    const float own = widen(q[i]);
    float slopes = 0.0F, values = 0.0F;
    for (int64_t j = 0; j < shape.keys; ++j) {
      const float d = widen(dscores[query * shape.keys + j]);
      const float bent = tanhf(own + widen(key[j * shape.features]));
      slopes += d * (1.0F - bent * bent);
      values += d * bent;
    }
    dq[i] = narrow<T>(slopes * widen(v[a]));
    dv[i] = values;
  }
}

template <typename T>
__global__ void compared_keys_kernel(ComparedShape shape, const T* q, const T* k, const T* v,
                                     const T* dscores, T* dk) {
  const int64_t n = shape.rows * shape.keys * shape.features;
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t key = i / shape.features, a = i % shape.features;
    const int64_t first = key / shape.keys * shape.queries;
    const float own = widen(k[i]);
    float slopes = 0.0F;
    for (int64_t query = first; query < first + shape.queries; ++query) {
      const float bent = tanhf(widen(q[query * shape.features + a]) + own);
      slopes += widen(dscores[query * shape.keys + key % shape.keys]) * (1.0F - bent * bent);
    }
    dk[i] = narrow<T>(slopes * widen(v[a]));
  }
}

}  // namespace

template <typename T>
void compared(const ComparedShape& shape, const T* q, const T* k, const T* v, T* scores,
              cudaStream_t stream) {
  const int64_t pairs = shape.rows * shape.queries * shape.keys;
  launch(stream, blocks_of(pairs, kThreads / kWarp), kThreads, compared_kernel<T>, shape, q, k, v,
         scores, pairs);
}
template <typename T>
void compared_backward(const ComparedShape& shape, const T* q, const T* k, const T* v,
                       const T* dscores, T* dq, T* dk, float* dv_by_query, cudaStream_t stream) {
  launch(stream, blocks_of(shape.rows * shape.queries * shape.features), kThreads,
         compared_queries_kernel<T>, shape, q, k, v, dscores, dq, dv_by_query);
  launch(stream, blocks_of(shape.rows * shape.keys * shape.features), kThreads,
         compared_keys_kernel<T>, shape, q, k, v, dscores, dk);
}

#define WEFT_INSTANTIATE(T)                                                                        \
  template void compared<T>(const ComparedShape&, const T*, const T*, const T*, T*, cudaStream_t); \
  template void compared_backward<T>(const ComparedShape&, const T*, const T*, const T*, const T*, \
                                     T*, T*, float*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
