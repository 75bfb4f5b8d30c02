// The backward pass of fused attention, and the sums that it needs of the forward pass's output: a
// warp a query, fp32. The numerical policy stands in attention.h.
#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/block_reduce.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void delta_kernel(AttentionShape shape, AttentionHeads<const T> out,
                             AttentionHeads<const T> d_out, int64_t count, float* delta) {
  const int64_t warps = kThreads / kWarp, warp = threadIdx.x / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t i = blockIdx.x * warps + warp; i < count; i += gridDim.x * warps) {
    const int64_t query = i % shape.queries, head = i / shape.queries % shape.heads;
    const int64_t row = i / shape.queries / shape.heads;
    const TokenRows<const T> a = rows_of(out, row, head), b = rows_of(d_out, row, head);
    float total = 0.0F;
    for (int column = lane; column < shape.value_width; column += kWarp) {
      total += widen(a.data[query * a.step + column]) * widen(b.data[query * b.step + column]);
    }
    total = warp_reduce<Add>(total);
    if (lane == 0) delta[i] = total;
  }
}

}  // namespace

template <typename T>
void attention_delta(const AttentionShape& shape, AttentionHeads<const T> out,
                     AttentionHeads<const T> d_out, float* delta, cudaStream_t stream) {
  const int64_t count = shape.rows * shape.heads * shape.queries;
  launch(stream, blocks_of(count, kThreads / kWarp), kThreads, delta_kernel<T>, shape, out, d_out,
         count, delta);
}

template <typename T>
void attention_backward(const AttentionShape& shape, const AttentionRules& rules,
                        AttentionHeads<const T> q, AttentionHeads<const T> k,
                        AttentionHeads<const T> v, AttentionHeads<const T> d_out,
                        const float* log_sum_exp, const float* delta, AttentionResult<T> dq,
                        AttentionResult<T> dk, AttentionResult<T> dv, void* scratch,
                        cudaStream_t stream) {
  check_attention(shape, rules);
  const bool aligned = rows_aligned(q) && rows_aligned(k) && rows_aligned(v) && rows_aligned(d_out);
  const RangeTables ranges = make_ranges(shape, rules, scratch, stream);
  const BackwardArguments<T> arguments{
      attention_of(shape, rules, ranges, aligned), q, k, v, d_out, log_sum_exp, delta, dq, dk, dv};
  if (shape.queries > 0) backward_queries(arguments, stream);
  if (shape.keys > 0) backward_keys(arguments, stream);
}

#define WEFT_INSTANTIATE(T)                                                                    \
  template void attention_delta<T>(const AttentionShape&, AttentionHeads<const T>,             \
                                   AttentionHeads<const T>, float*, cudaStream_t);             \
  template void attention_backward<T>(                                                         \
      const AttentionShape&, const AttentionRules&, AttentionHeads<const T>,                   \
      AttentionHeads<const T>, AttentionHeads<const T>, AttentionHeads<const T>, const float*, \
      const float*, AttentionResult<T>, AttentionResult<T>, AttentionResult<T>, void*,         \
      cudaStream_t);
WEFT_INSTANTIATE(float)
WEFT_INSTANTIATE(bfloat16)
WEFT_INSTANTIATE(float16)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
