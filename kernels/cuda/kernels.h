// The CUDA kernels, one function each: pointers are to device memory, arrays are row-major and
// contiguous, counts are in elements, and the work is queued on `stream`. Everything is fp32 but
// ids and labels (int64); the opening comment of each .cu states its numerical policy. The CPU
// meaning of each is the op of the same name in kernels/ops.
//
// Thread safety: any thread, each with its own stream. Ownership: nothing is kept; the caller keeps
// the arrays until the stream has come past. Invariants: 1. outputs do not overlap inputs unless
// the function says so. 2. zero elements are no work. 3. a refused launch throws StatusError.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>

#include "kernels/ops/random.h"

namespace weft::cuda {

// ---- elementwise.cu: out may be an input.
void add(const float* a, const float* b, float* out, int64_t n, cudaStream_t stream);
void multiply(const float* a, const float* b, float* out, int64_t n, cudaStream_t stream);
// out[r, c] = factor x[r, c] + bias[c]; bias [width], or null for none.
void scale_bias(const float* x, const float* bias, float factor, float* out, int64_t rows,
                int64_t width, cudaStream_t stream);

// ---- gelu.cu: the tanh form; dx = dy gelu'(x). Outputs may be inputs.
void gelu_tanh(const float* x, float* y, int64_t n, cudaStream_t stream);
void gelu_tanh_backward(const float* x, const float* dy, float* dx, int64_t n, cudaStream_t stream);

// ---- layer_norm.cu: x [rows, width], gamma and beta [width]; y, mean and rstd [rows].
void layer_norm(const float* x, const float* gamma, const float* beta, float epsilon, int64_t rows,
                int64_t width, float* y, float* mean, float* rstd, cudaStream_t stream);
// ---- layer_norm_backward.cu: dx [rows, width]; dgamma and dbeta [width] are overwritten.
void layer_norm_backward(const float* x, const float* dy, const float* gamma, const float* mean,
                         const float* rstd, int64_t rows, int64_t width, float* dx, float* dgamma,
                         float* dbeta, cudaStream_t stream);

// ---- softmax.cu: over rows of `width`; a row of nothing but -infinity gives zeros.
void softmax(const float* x, float* y, int64_t rows, int64_t width, cudaStream_t stream);
void softmax_backward(const float* y, const float* dy, float* dx, int64_t rows, int64_t width,
                      cudaStream_t stream);

// ---- cross_entropy.cu: loss[r] = lse[r] - logits[r, label[r]], lse the log of the sum of
// exponentials; both are 0 where the label is ignore_index. Labels lie in [0, width); the loss of a
// row with another is NaN.
void cross_entropy(const float* logits, const int64_t* labels, int64_t ignore_index, int64_t rows,
                   int64_t width, float* loss, float* lse, cudaStream_t stream);
// dlogits = dloss (softmax - one-hot); zeros for ignored rows. dlogits may be logits.
void cross_entropy_backward(const float* logits, const int64_t* labels, const float* lse,
                            int64_t ignore_index, float dloss, int64_t rows, int64_t width,
                            float* dlogits, cudaStream_t stream);

// ---- embedding.cu: out[i] = table[ids[i] - first_id], zeros where the table [rows, width] has no
// such row.
void embedding(const int64_t* ids, const float* table, int64_t first_id, int64_t rows,
               int64_t count, int64_t width, float* out, cudaStream_t stream);
// dtable[ids[i] - first_id] += dy[i], but for ids outside and for padding_id (-1: none). The caller
// clears dtable.
void embedding_scatter_add(const int64_t* ids, const float* dy, int64_t first_id,
                           int64_t padding_id, int64_t rows, int64_t count, int64_t width,
                           float* dtable, cudaStream_t stream);

// ---- adamw.cu: the constants of one update, in the notation of worker/optimizer/optimizer.h.
struct AdamWConstants {
  float keep;                        // 1 - rate decay
  float beta1, rest1, beta2, rest2;  // rest = 1 - beta
  float step;                        // rate / (1 - beta1^n)
  float root;                        // 1 / sqrt(1 - beta2^n)
  float epsilon;
  float gradient_scale;  // the clipping factor
};
// Updates p and the moments m and v in place.
void adamw(const AdamWConstants& constants, const float* g, float* p, float* m, float* v, int64_t n,
           cudaStream_t stream);

// ---- dropout.cu: x is the part of a global array that covers [offset[d], offset[d] + extent[d])
// of global[d]; at most kDropoutDims dims. The mask is that of ops::dropout: keyed by the row-major
// index in the global array. y may be x; the gradient is the same function of dy. 0 <= rate < 1.
constexpr int kDropoutDims = 6;
void dropout(const float* x, std::span<const int64_t> extent, std::span<const int64_t> global,
             std::span<const int64_t> offset, double rate, RandomKey key, float* y,
             cudaStream_t stream);

// ---- reduce.cu: *out = the sum, or the sum of squares, of x. partials: room for kPartials.
constexpr int kPartials = 1024;
void sum(const float* x, int64_t n, double* partials, double* out, cudaStream_t stream);
void sum_of_squares(const float* x, int64_t n, double* partials, double* out, cudaStream_t stream);

}  // namespace weft::cuda
