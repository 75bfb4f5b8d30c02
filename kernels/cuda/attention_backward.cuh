// What the kernels of attention's backward pass share. With weights P = exp(S - lse), their
// gradients dP = dO v^T and delta = sum(dO O):
//   dS = P (keep dP - delta) slope,   dq = scale dS k,   dk = scale dS^T q,   dv = (keep P)^T dO.
#pragma once

#include "kernels/cuda/attention_tile.cuh"

namespace weft::cuda {

template <typename T>
struct BackwardArguments {
  Attention attention;
  AttentionHeads<const T> q, k, v, d_out;
  const float *log_sum_exp, *delta;  // [rows, heads, queries]
  AttentionResult<T> dq, dk, dv;
};

// Of one query: log_sum_exp in units of log2(e), infinite where it sees nothing or does not exist,
// so that its weights are 0.
struct alignas(8) QuerySums {
  float lse, delta;
};
template <typename T>
__device__ QuerySums query_sums(const BackwardArguments<T>& arguments, int64_t row, int64_t head,
                                int64_t query) {
  const AttentionShape& shape = arguments.attention.shape;
  if (query >= shape.queries) return {INFINITY, 0.0F};
  const int64_t at = (row * shape.heads + head) * shape.queries + query;
  const float lse = arguments.log_sum_exp[at];
  return {lse == -INFINITY ? INFINITY : lse * kLog2e, arguments.delta[at]};
}

// In: the product of query and key, and that of the output's gradient and the value. Out: the kept
// weight and the gradient of the score. Returns the score's slope by the scaled product.
template <typename T>
__device__ float weigh(const Attention& a, const ScorePlace& at, bool masked, const QuerySums& sums,
                       float& product, float& gradient) {
  const Score score = score_of<T>(a, at, product);
  const float weight = masked && !is_visible(a, at) ? 0.0F : exp2f(score.value - sums.lse);
  const float keep = a.drops ? drop_factor(a, at) : 1.0F;
  product = weight * keep;
  gradient = weight * (keep * gradient - sums.delta);
  return score.slope;
}

// The two kernels.
template <typename T>
void backward_queries(const BackwardArguments<T>& arguments, cudaStream_t stream);
template <typename T>
void backward_keys(const BackwardArguments<T>& arguments, cudaStream_t stream);

}  // namespace weft::cuda
