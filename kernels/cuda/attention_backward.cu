// The backward pass of fused attention, and the sums that it needs of the forward pass's output,
// fp32: a few lanes a query, each of which adds up vectors of its columns, then a tree. The
// numerical policy stands in attention.h.
#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

// `lanes` of a warp, a power of two, take a query.
template <typename T>
__global__ void delta_kernel(AttentionShape shape, AttentionHeads<const T> out,
                             AttentionHeads<const T> d_out, bool vectors, int lanes, int64_t count,
                             float* delta) {
  constexpr int kWide = kVectorWidth<T>;
  const int own = static_cast<int>(threadIdx.x) % lanes, queries = kThreads / lanes;
  const int64_t turns = (count + queries - 1) / queries;  // as many for all lanes of a warp
  for (int64_t turn = blockIdx.x; turn < turns; turn += gridDim.x) {
    const int64_t i = turn * queries + threadIdx.x / lanes;
    float total = 0.0F;
    if (i < count) {
      const int64_t head_row = i / shape.queries, query = i - head_row * shape.queries;
      const int64_t row = head_row / shape.heads, head = head_row - row * shape.heads;
      const TokenRows<const T> a = rows_of(out, row, head), b = rows_of(d_out, row, head);
      with_alignment(vectors, [&](auto aligned) {
        for (int64_t at = own * kWide; at < shape.value_width; at += lanes * kWide) {
          const int there = static_cast<int>(min(shape.value_width - at, int64_t{kWide}));
          const auto x = load_some<kWide>(a.data + query * a.step + at, there, aligned.value);
          const auto dy = load_some<kWide>(b.data + query * b.step + at, there, aligned.value);
          WEFT_UNROLL
          for (int j = 0; j < kWide; ++j) total += widen(x.at[j]) * widen(dy.at[j]);
        }
      });
    }
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
      total += __shfl_xor_sync(kAllLanes, total, distance);
    }
    if (own == 0 && i < count) delta[i] = total;
  }
}

}  // namespace

template <typename T>
void attention_delta(const AttentionShape& shape, AttentionHeads<const T> out,
                     AttentionHeads<const T> d_out, float* delta, cudaStream_t stream) {
  constexpr int kWide = kVectorWidth<T>;
  const int64_t count = shape.rows * shape.heads * shape.queries;
  int lanes = 1;
  while (lanes < kWarp && lanes * kWide < shape.value_width) lanes *= 2;
  const bool aligned = shape.value_width % kWide == 0 && rows_aligned(out) && rows_aligned(d_out);
  launch(stream, blocks_of(count, kThreads / lanes), kThreads, delta_kernel<T>, shape, out, d_out,
         aligned, lanes, count, delta);
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
