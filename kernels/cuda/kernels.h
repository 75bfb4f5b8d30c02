// The CUDA kernels, one function each: pointers are to device memory, arrays are row-major and
// contiguous, counts are in elements, and the work is queued on `stream`. T is float, bfloat16 or
// float16; statistics and sums are fp32, ids and labels int64; the opening comment of each .cu
// states its numerical policy. The CPU meaning of each is the op of the same name in kernels/ops.
//
// Thread safety: any thread, each with its own stream. Ownership: nothing is kept; the caller keeps
// the arrays until the stream has come past. Invariants: 1. outputs do not overlap inputs unless
// the function says so. 2. zero elements are no work. 3. a refused launch throws StatusError.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>
#include <type_traits>

#include "kernels/cpu/vectors.h"
#include "kernels/cuda/device_key.h"
#include "kernels/cuda/walk.h"
#include "kernels/ops/out_of_range.h"
#include "kernels/tensor/half.h"

#define WEFT_FOR_FLOATING(act) act(float) act(bfloat16) act(float16)

namespace weft::cuda {

// An array that may be absent (null).
template <typename T>
using Optional = std::type_identity_t<const T*>;

// The elements of segment s are order[start[s]] to order[start[s + 1] - 1], in that order.
struct Segments {
  const int64_t *start, *order;
  int64_t count, elements;
};

// Numbers that name nothing are left out, and the first launch that meets one notes it:
// outside.cuh.
struct Note {
  unsigned taken = 0;
  ops::OutOfRange found;
};
struct Outside {
  Note* note = nullptr;  // which the host can read; null: nobody asks
  ops::Numbers numbers = ops::Numbers::kNone;
};

// ---- elementwise.cu: out may be an input where it is walked over as that is.
enum class Binary { kAdd, kSubtract, kMultiply, kDivide };  // as ops::Arithmetic
// The walk is over a, b, out.
template <typename T>
void binary(Binary kind, const Walk<3>& walk, const T* a, const T* b, T* out, cudaStream_t stream);
template <typename T>
void scale(const T* x, double factor, T* y, int64_t n, cudaStream_t stream);
template <typename T>  // also double, int64_t, int32_t, uint8_t
void fill(T value, T* y, int64_t n, cudaStream_t stream);
// Casts and strided copies, and with an offset of `to` concatenation, padding and slicing. Between
// any two of the three T, double, int64_t, int32_t and uint8_t, as in C++; halves by way of float.
template <typename From, typename To>
void copy(const Walk<2>& walk, const From* from, To* to, cudaStream_t stream);
// to += from: two of the same floating type, or a half and a float.
template <typename From, typename To>
void add(const Walk<2>& walk, const From* from, To* to, cudaStream_t stream);

// ---- functions.cu: y may be x, dx may be dy.
struct Function {
  cpu::Unary kind;
  float a = 0, b = 0;  // its parameters
};
template <typename T>
void unary(Function f, const T* x, T* y, int64_t n, cudaStream_t stream);
template <typename T>
void unary_backward(Function f, const T* x, const T* dy, T* dx, int64_t n, cudaStream_t stream);

// ---- selection.cu: walks over the arrays in the order of the parameters.
template <typename T>  // also int64_t, int32_t, uint8_t
void compare(cpu::Compare kind, const Walk<3>& walk, const T* a, const T* b, uint8_t* out,
             cudaStream_t stream);
template <typename T>
void extreme(bool larger, const Walk<3>& walk, const T* a, const T* b, T* out, cudaStream_t stream);
// out = mask ? a : b
template <typename T>
void choose(const Walk<4>& walk, const uint8_t* mask, const T* a, const T* b, T* out,
            cudaStream_t stream);

// ---- activation.cu: y = f(x + bias), dx = dy f'(x + bias); bias [width] or null. Outputs may be
// inputs.
enum class Curve {
  kGeluTanh,
  kGeluErf,
  kRelu,
  kSilu,
  kTanh,
  kSigmoid,
  kIdentity
};  // ops::Activation
template <typename T>
void curve(Curve kind, const T* x, Optional<T> bias, T* y, int64_t rows, int64_t width,
           cudaStream_t stream);
template <typename T>
void curve_backward(Curve kind, const T* x, Optional<T> bias, const T* dy, T* dx, int64_t rows,
                    int64_t width, cudaStream_t stream);
// y = silu(gate) up.
template <typename T>
void swiglu(const T* gate, const T* up, T* y, int64_t n, cudaStream_t stream);
template <typename T>
void swiglu_backward(const T* gate, const T* up, const T* dy, T* dgate, T* dup, int64_t n,
                     cudaStream_t stream);

// ---- norm.cu: over rows [rows, width] of x, or of x + residual.
template <typename T>
struct NormArguments {
  const T* x;
  const T* residual;          // or null
  const float *gamma, *beta;  // [width]; beta may be null
  float epsilon;
  int64_t rows, width;
  T* sum;  // x + residual, or null; may be either of them
  T* y;
  float *mean, *rstd;  // [rows]; mean null: RMS norm
};
template <typename T>
void norm(const NormArguments<T>& arguments, cudaStream_t stream);
// ---- norm_backward.cu: x is what was normalized (the sum, if there was one).
template <typename T>
struct NormBackwardArguments {
  const T *x, *dy;
  const T* dsum;                     // the gradient that flows past the norm, or null
  const float *gamma, *mean, *rstd;  // mean null: RMS norm
  int64_t rows, width;
  T* dx;                  // may be dsum
  float *dgamma, *dbeta;  // overwritten; dbeta may be null
  int64_t blocks = 1;     // of rows, whose sums are merged in a tree; at most as many as rows
};
int64_t norm_backward_scratch(int64_t rows, int64_t width, int64_t blocks = 1);  // floats
template <typename T>
void norm_backward(const NormBackwardArguments<T>& arguments, float* scratch, cudaStream_t stream);

// ---- softmax.cu: over rows of `width`; a row of nothing but -infinity gives zeros.
template <typename T>
void softmax(const T* x, T* y, int64_t rows, int64_t width, cudaStream_t stream);
template <typename T>
void softmax_backward(const T* y, const T* dy, T* dx, int64_t rows, int64_t width,
                      cudaStream_t stream);

// ---- cross_entropy.cu
struct LossRules {
  int64_t ignore_index = -100;
  float smoothing = 0;  // the share of the target that all classes get evenly
  int64_t first = 0;    // the class of column 0: of a shard of the vocabulary
  int64_t classes = 0;  // of the whole vocabulary
  Outside outside = {};
};
// Rows of logits, `step` apart; where gradients take their place, zeros fill up the columns from
// width to step.
struct LogitRows {
  int64_t count, width, step;
};
// Over the whole vocabulary: loss[r] = lse[r] - logits[r, label[r]] (smoothed: the mean logit for
// its share), lse the log of the sum of exponentials, 0 where the label is ignore_index; and logits
// := *dloss (softmax - target), zeros in ignored rows. Labels lie in [0, width); the loss of a row
// with another is NaN, and it is noted.
template <typename T>
void loss_and_gradient(T* logits, const int64_t* labels, const LossRules& rules, const float* dloss,
                       const LogitRows& rows, float* loss, cudaStream_t stream);
// The pieces of the same over a sharded vocabulary, or without the gradient: each row's maximum
// here, and terms [2, rows]: the sum of exponentials shifted by it, and the label's logit,
// smoothed; the first shifted by the maximum of all shards instead; of their sums the loss of each
// row, and its lse in place of its maximum; and the gradient. loss_total notes labels.
template <typename T>
void loss_terms(const T* logits, const int64_t* labels, const LossRules& rules,
                const LogitRows& rows, float* maximum, float* terms, cudaStream_t stream);
void shift_terms(const float* own_maximum, const float* maximum, int64_t rows, float* terms,
                 cudaStream_t stream);
void loss_total(const int64_t* labels, const float* terms, const LossRules& rules, int64_t rows,
                float* maximum_to_lse, float* loss, cudaStream_t stream);
template <typename T>
void loss_gradient(T* logits, const int64_t* labels, const float* lse, const LossRules& rules,
                   const float* dloss, const LogitRows& rows, cudaStream_t stream);
// out := x [rows, width], but zeros in ignored rows, whatever stands there.
template <typename T>
void counted_rows(const T* x, const int64_t* labels, int64_t ignore_index, int64_t rows,
                  int64_t width, T* out, cudaStream_t stream);
// gradient *= *dy / *seed; nothing is touched where they are equal.
template <typename T>
void reseed(const float* dy, const float* seed, int64_t n, T* gradient, cudaStream_t stream);

// ---- embedding.cu: out[i] = table[ids[i] - first_id], zeros where the table [rows, width] has no
// such row.
template <typename T>
void embedding(const int64_t* ids, const T* table, int64_t first_id, int64_t rows, int64_t count,
               int64_t width, T* out, cudaStream_t stream);
// Of ids that were brought together: dtable [segments.count, width], overwritten, has sums of rows
// of dy in the order of the segments' elements, the same bits every time, and zeros in padding_row
// (-1: none). The elements are so many blocks, a power of two, whose sums are merged in the tree
// that halves them.
template <typename T>
void embedding_backward(const Segments& segments, const T* dy, int64_t padding_row, int64_t width,
                        int64_t blocks, float* dtable, cudaStream_t stream);

// ---- gather.cu: out[r] = x[r, index[r]] of x [rows, tokens, width], zeros where there is no such
// token (-1: which is meant); and its gradient, zeros elsewhere.
template <typename T>
void gather_rows(const T* x, const int64_t* index, T* out, int64_t rows, int64_t tokens,
                 int64_t width, const Outside& outside, cudaStream_t stream);
template <typename T>
void gather_rows_backward(const T* dy, const int64_t* index, T* dx, int64_t rows, int64_t tokens,
                          int64_t width, cudaStream_t stream);

// ---- rope.cu: cosines and sines [tokens, pairs] of the angles position frequency[pair].
template <typename T>  // also double
void rotary_angles(const int64_t* positions, const double* frequencies, int64_t tokens,
                   int64_t pairs, T* cosines, T* sines, cudaStream_t stream);
// Rows [samples, rows_of_sample, width] of x, tokens innermost of a sample's rows; angles [tokens,
// pairs], or [samples, tokens, pairs] where rows_of_sample < rows. The first 2 `pairs` features
// turn, in pairs (i, i + pairs) or, if interleaved, (2i, 2i + 1). `backwards` turns the other way:
// the gradient. y may be x.
struct RotaryShape {
  int64_t rows = 0, tokens = 0, rows_of_sample = 0, width = 0, pairs = 0;
  bool interleaved = false, backwards = false;
};
template <typename T>
void rotary(const RotaryShape& shape, const T* x, const T* cosines, const T* sines, T* y,
            cudaStream_t stream);

// ---- adamw.cu: the constants of one update, in the notation of worker/optimizer/optimizer.h.
struct AdamWConstants {
  float keep;                        // 1 - rate decay
  float beta1, rest1, beta2, rest2;  // rest = 1 - beta
  float step;                        // rate / (1 - beta1^n)
  float root;                        // 1 / sqrt(1 - beta2^n)
  float epsilon;
  float gradient_scale;
};
// Besides a working copy in bf16, the value, `low` is kept of a parameter (kernels/cpu/singles.h).
template <typename W>
using AdamWKept = std::conditional_t<std::is_same_v<W, bfloat16>, bfloat16, float>;
// What is updated of one parameter, n elements of each, in place: what is kept of it, p, the
// moments m and v, and its working copy, which is only written but in bf16 and may be null but in
// bf16.
template <typename G, typename W>
struct AdamWArrays {
  AdamWConstants constants;
  const G* g;
  AdamWKept<W>* p;
  float *m, *v;
  W* working;
  int64_t n;
};
// All of these in few launches. Gradients count times gradient_scale and times *factor (the
// clipping factor, the loss scale; or null); where that is not finite, nothing changes. G and W:
// float and any, or both the same half-width type.
template <typename G, typename W>
void adamw(std::span<const AdamWArrays<G, W>> updates, const float* factor, cudaStream_t stream);

// ---- dropout.cu: x is the part of a global array that covers [offset[d], offset[d] + extent[d])
// of global[d]; at most kDropoutDims dims. The mask is that of ops::dropout: keyed by the row-major
// index in the global array. y may be x; the gradient is the same function of dy. 0 <= rate < 1.
constexpr int kDropoutDims = 6;
template <typename T>
void dropout(const T* x, std::span<const int64_t> extent, std::span<const int64_t> global,
             std::span<const int64_t> offset, double rate, DeviceKey key, T* y,
             cudaStream_t stream);

// ---- recurrent.cu: gates side by side in [rows, gates width], states [rows, width]; `bent` are
// the gates after their sigmoids and tanhs, which the backward pass takes. LSTM, gates i, f, g, o:
// next = c', h = h'. dh or dnext may be null.
template <typename T>
void lstm_gates(const T* gates, const T* c, T* h, T* next, T* bent, int64_t rows, int64_t width,
                cudaStream_t stream);
template <typename T>
void lstm_gates_backward(const T* bent, const T* c, const T* next, Optional<T> dh,
                         Optional<T> dnext, T* dgates, T* dc, int64_t rows, int64_t width,
                         cudaStream_t stream);
// GRU, gates r, z, n; a from the input, b from the state, b_new [rows, width] its part of n.
template <typename T>
void gru_gates(const T* a, const T* b, const T* h, T* next, T* bent, int64_t rows, int64_t width,
               cudaStream_t stream);
template <typename T>
void gru_gates_backward(const T* bent, const T* b_new, const T* h, const T* dnext, T* da, T* db,
                        T* dh, int64_t rows, int64_t width, cudaStream_t stream);

// ---- columns.cu: height and width of a convolution, as cpu::ConvolutionSizes.
struct ConvolutionWindow {
  int64_t in[2], out[2], kernel[2], stride[2], before[2], dilation[2];
};
// columns [planes, taps, out] of x [planes, in]: with the images outermost of the planes, the right
// side of each image's product with the weights.
template <typename T>
void gather_columns(const ConvolutionWindow& window, const T* x, T* columns, int64_t planes,
                    cudaStream_t stream);
// The transpose: each place of x becomes the sum of the columns' elements that were read from it.
template <typename T>
void scatter_columns(const ConvolutionWindow& window, const T* columns, T* x, int64_t planes,
                     cudaStream_t stream);

// ---- pooling.cu: x [planes, in] -> y [planes, out]; `place` is where in its plane each maximum
// is.
struct PoolWindow {
  int64_t in[2], out[2], kernel[2], stride[2], padding[2];
  bool count_padding;  // of means
  // Windows are the parts of the input, of sizes as even as they get; where `out` does not divide
  // `in` they overlap. Kernel, stride and padding count for nothing then.
  bool adaptive = false;
};
template <typename T>
void max_pool(const PoolWindow& window, const T* x, T* y, int64_t* place, int64_t planes,
              cudaStream_t stream);
template <typename T>
void max_pool_backward(const PoolWindow& window, const T* dy, const int64_t* place, T* dx,
                       int64_t planes, cudaStream_t stream);
template <typename T>
void average_pool(const PoolWindow& window, const T* x, T* y, int64_t planes, cudaStream_t stream);
template <typename T>
void average_pool_backward(const PoolWindow& window, const T* dy, T* dx, int64_t planes,
                           cudaStream_t stream);

// ---- reduce.cu: *out = the sum of x, in float or double. partials: room for kPartials.
constexpr int kPartials = 1024;
template <typename T, typename Out>
void sum(const T* x, int64_t n, double* partials, Out* out, cudaStream_t stream);
// *out = the squares of all elements of all arrays, in few launches. partials: so many doubles.
struct FloatArray {
  const float* data;
  int64_t count;
};
int64_t sum_of_squares_scratch(std::span<const FloatArray> xs);
void sum_of_squares(std::span<const FloatArray> xs, double* partials, double* out,
                    cudaStream_t stream);
// out [outer, inner] = factor times the sum over the middle of x [outer, extent, inner], cut into
// `blocks` of the extent that are merged in the tree of ops::sum_middle. scratch: so many floats.
int64_t sum_middle_scratch(int64_t outer, int64_t extent, int64_t inner, int64_t blocks);
template <typename T>
void sum_middle(const T* x, int64_t outer, int64_t extent, int64_t inner, double factor,
                int64_t blocks, float* scratch, T* out, cudaStream_t stream);

// ---- exact_squares.cu: *largest := the largest |x|, or itself; NaN counts as infinite. partials:
// room for kPartials.
void largest_size(const float* x, int64_t n, float* partials, float* largest, cudaStream_t stream);
// As cpu::UpdateKernels::cut_squares, a and b being sums[0] and sums[1]. partials: room for 2
// kPartials.
void cut_squares(const float* x, int64_t n, double first, double second, double* partials,
                 double* sums, cudaStream_t stream);

// ---- attention_merge.cu: partial attention `into` := merged with `other` (attention::merge);
// outputs [rows, width], lse [rows].
void attention_merge(float* into, float* into_lse, const float* other, const float* other_lse,
                     int64_t rows, int64_t width, cudaStream_t stream);

// ---- log_softmax.cu: over rows of `width`; a row of nothing but -infinity gives zeros.
template <typename T>
void log_softmax(const T* x, T* y, int64_t rows, int64_t width, cudaStream_t stream);
template <typename T>
void log_softmax_backward(const T* y, const T* dy, T* dx, int64_t rows, int64_t width,
                          cudaStream_t stream);

// ---- lines.cu: along the middle of x [outer, extent, inner]. extent > 0 of extremes, whose values
// and places are [outer, inner]: of equal ones the first, a NaN before all others.
template <typename T>
void extreme_along(bool larger, const T* x, int64_t outer, int64_t extent, int64_t inner, T* values,
                   int64_t* places, cudaStream_t stream);
// y[i] = x[0] + ... + x[i]; reversed: x[i] + ... + x[extent - 1]. y may be x.
template <typename T>
void cumulative_sum(const T* x, T* y, int64_t outer, int64_t extent, int64_t inner, bool reversed,
                    cudaStream_t stream);

// ---- sort.cu: each row of x [rows, width] in order, and where in the row each came from; stable;
// NaN counts as the largest. The last two arrays are room, of no use where width <= kSortTile.
template <typename T>  // also int64_t
void sort_rows(const T* x, int64_t rows, int64_t width, bool descending, T* values, int64_t* places,
               T* other_values, int64_t* other_places, cudaStream_t stream);

// ---- indexing.cu: a dim whose elements are named by number, `step` apart.
struct NumberedDim {
  int64_t extent, step;
  Outside outside = {};
};
// out = x[number]; the walk is over index, x (stride 0 along the dim) and out. A number outside
// gives NaN.
template <typename T>
void take_along(const Walk<3>& walk, const NumberedDim& dim, const int64_t* index, const T* x,
                T* out, cudaStream_t stream);
// out[number] = source, each place named at most once; the walk is over index, source and out
// (stride 0 along the dim). A number outside puts nothing.
template <typename T>
void put_along(const Walk<3>& walk, const NumberedDim& dim, const int64_t* index, const T* source,
               T* out, cudaStream_t stream);
// The element of an array that each number names (-1: outside); the walk is over index, the array
// (stride 0 along the dim) and the targets.
void targets_along(const Walk<3>& walk, const NumberedDim& dim, const int64_t* index,
                   int64_t* targets, cudaStream_t stream);
// out [count, classes]: `one` at each id, else `zero`.
template <typename T>  // also double, int64_t, int32_t, uint8_t
void one_hot(const int64_t* ids, int64_t count, int64_t classes, T one, T zero, T* out,
             const Outside& outside, cudaStream_t stream);
// 1 where column <= row + diagonal, else 0.
void triangular_mask(int64_t rows, int64_t columns, int64_t diagonal, uint8_t* out,
                     cudaStream_t stream);
// out = group * extent + index of index [groups, of_group]; -1 where that is outside.
void rows_of_index(const int64_t* index, int64_t groups, int64_t of_group, int64_t extent,
                   int64_t* out, cudaStream_t stream);

// ---- segments.cu: start [count + 1] from the sorted segments of n elements, of which those in
// [first, first + count) count; where first is 0 others are noted.
void segment_starts(const int64_t* sorted, int64_t n, int64_t first, int64_t count, int64_t* start,
                    const Outside& outside, cudaStream_t stream);
// The segment of each of n elements: segment s is [offsets[s], offsets[s + 1]), of `count`.
void segments_of_offsets(const int64_t* offsets, int64_t count, int64_t n, int64_t* segment,
                         cudaStream_t stream);
// out [outer, count, inner] = (or, if it adds, +=) sums of x [outer, elements, inner].
template <typename T>
void segment_sum(const Segments& segments, const T* x, int64_t outer, int64_t inner, bool adds,
                 T* out, cudaStream_t stream);
// out and place [count, inner]: the largest of x [elements, inner] and the element it is of; an
// empty segment gives 0 and -1.
template <typename T>
void segment_max(const Segments& segments, const T* x, int64_t inner, T* out, int64_t* place,
                 cudaStream_t stream);
// dx[place] = dy of n = count inner maxima; the caller clears dx.
template <typename T>
void segment_max_backward(const T* dy, const int64_t* place, int64_t n, int64_t inner, T* dx,
                          cudaStream_t stream);
template <typename T>
void segment_softmax(const Segments& segments, const T* x, int64_t inner, T* y,
                     cudaStream_t stream);

// ---- channel_norm.cu: x as rows of `elements`, one a sample and channel. Statistics are of
// `together` rows that lie next to each other, or (0) of a channel.
struct ChannelRows {
  int64_t samples, channels, elements, together;
};
// mean and 1 / sqrt(variance + epsilon) of each `count` elements of x.
template <typename T>
void group_moments(const T* x, int64_t groups, int64_t count, float epsilon, float* mean,
                   float* rstd, cudaStream_t stream);
// sums [samples, channels] of x; with a mean, of squares around it.
template <typename T>
void channel_sums(const ChannelRows& rows, const T* x, const float* mean, float* sums,
                  cudaStream_t stream);
void rstd_of(const float* variance, int64_t n, float epsilon, float* rstd, cudaStream_t stream);
// y = (x - mean) rstd gamma + beta; gamma and beta [channels].
template <typename T>
void normalize_channels(const ChannelRows& rows, const T* x, const T* gamma, const T* beta,
                        const float* mean, const float* rstd, T* y, cudaStream_t stream);
template <typename T>
struct ChannelNormGradient {
  ChannelRows rows;
  const T *x, *dy, *gamma;
  const float *mean, *rstd;
  T* dx;
};
// Sums [samples, channels] of dy and of dy times the normalized x.
template <typename T>
void channel_gradient_sums(const ChannelNormGradient<T>& gradient, float* total, float* along,
                           cudaStream_t stream);
// dx from these sums; of statistics of a channel: from the sums over the samples, [channels].
// scratch: two floats a statistic.
template <typename T>
void channel_gradient(const ChannelNormGradient<T>& gradient, const float* total,
                      const float* along, float* scratch, cudaStream_t stream);

// ---- compared.cu: scores [rows, queries, keys] = v . tanh(q + k) of q [rows, queries, features]
// and k [rows, keys, features].
struct ComparedShape {
  int64_t rows, queries, keys, features;
};
template <typename T>
void compared(const ComparedShape& shape, const T* q, const T* k, const T* v, T* scores,
              cudaStream_t stream);
// The gradient of v by query: [rows, queries, features], to be summed.
template <typename T>
void compared_backward(const ComparedShape& shape, const T* q, const T* k, const T* v,
                       const T* dscores, T* dq, T* dk, float* dv_by_query, cudaStream_t stream);

// ---- relative.cu: what scores have by distance and segment (attention/relative.h). Products and
// what else is of pairs begins with the first of them; other arrays are of all rows and heads.
struct RelativePairs {
  int64_t first, count;  // of pairs of a row and a head, in row-major order
  int64_t heads, queries, keys, features;
  // Columns of what is by distance, as many as there are distances or more, and features of
  // products.
  int64_t width, product_features;
  const int64_t* places;  // [rows, queries]; null: the queries are the last of the keys' tokens
  float scale;
};
template <typename T>
struct RelativeSegments {
  const T *q, *bias;                    // [rows, heads, queries, features], s [heads, features]
  const T* vectors;                     // g [2, heads, features]; null: there are no segments
  const int64_t *of_queries, *of_keys;  // [rows, queries], [rows, keys]
};
// scores [rows, heads, queries, keys] of products (q + v) r [pairs, queries, width]. Queries that
// stand nowhere have NaN.
template <typename T>
void relative_scores(const RelativePairs& pairs, const RelativeSegments<T>& segments,
                     const float* products, T* scores, cudaStream_t stream);
// dscores by distance [pairs, queries, width], zeros elsewhere; and with segments its sums over
// the keys of one (0) and of other segments (1), [pairs, queries, 2].
template <typename T>
void relative_by_distance(const RelativePairs& pairs, const RelativeSegments<T>& segments,
                          const T* dscores, T* by_distance, float* sums, cudaStream_t stream);
// Gradients of v and, with segments, s [rows, heads, features] and g [rows, heads, 2, features].
struct RelativeVectors {
  float *position, *segment, *segments;
};
// From the products [pairs, queries, product_features] of what is by distance with r.
template <typename T>
void relative_queries(const RelativePairs& pairs, const RelativeSegments<T>& segments,
                      const float* products, const float* sums, T* dq, const RelativeVectors& out,
                      cudaStream_t stream);

// ---- draw.cu: index[row] of scores [rows, keys] as attention::draw; the number drawn by is that
// of `first` and where the row lies on the walk. -1: all scores are -infinity.
template <typename T>
void draw(const Walk<1>& walk, const T* scores, int64_t keys, DeviceKey key, int64_t first,
          int64_t* index, cudaStream_t stream);

// ---- ctc.cu: logits [times, batch, classes], targets [batch, width], lengths [batch].
template <typename T>
struct CtcProblem {
  const T* logits;
  const int64_t *targets, *input_lengths, *target_lengths;
  int64_t times, batch, classes, width, blank;
  // Room: [times, batch] and, each, [batch, times, states_max]; beta for the gradient only.
  double *log_sums, *alpha, *beta;
  Note* note = nullptr;  // of what makes the loss NaN
  __host__ __device__ int64_t states_max() const { return 2 * width + 1; }
};
// loss [batch]; infinity where no path fits.
template <typename T>
void ctc(const CtcProblem<T>& problem, T* loss, cudaStream_t stream);
template <typename T>
void ctc_backward(const CtcProblem<T>& problem, const T* dloss, T* dx, cudaStream_t stream);

}  // namespace weft::cuda
