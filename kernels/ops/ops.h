// The differentiable ops. Each is declared here and stands in a file of its own (or of its kind).
// Shapes are in the comments: B batch, T tokens, H hidden, V vocabulary. All take any strides
// unless they say otherwise; results are contiguous unless they are views.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "kernels/autograd/op.h"
#include "kernels/ops/random.h"

namespace weft::ops {

// ---- arithmetic (arithmetic.cc): numpy broadcasting
// -------------------------------------------------
Tensor add(Context& cx, const Tensor& a, const Tensor& b);
Tensor subtract(Context& cx, const Tensor& a, const Tensor& b);
Tensor multiply(Context& cx, const Tensor& a, const Tensor& b);
Tensor divide(Context& cx, const Tensor& a, const Tensor& b);
Tensor scale(Context& cx, const Tensor& x, double factor);

// ---- activations (activation.cc)
// ---------------------------------------------------------------------
enum class Activation { kGeluTanh, kGeluErf, kRelu, kSilu, kTanh, kSigmoid };
Tensor activate(Context& cx, const Tensor& x, Activation kind);

// ---- reductions (reduce.cc): over one dim, kept with extent 1 if keep
// ---------------------------------
Tensor sum(Context& cx, const Tensor& x, int dim, bool keep = false);
Tensor mean(Context& cx, const Tensor& x, int dim, bool keep = false);
Tensor sum_all(Context& cx, const Tensor& x);  // scalar

// ---- shape (shape_ops.cc)
// ------------------------------------------------------------------------------
Tensor reshape(Context& cx, const Tensor& x, Shape shape);  // a view where the strides allow it
Tensor permute(Context& cx, const Tensor& x, std::span<const int> order);            // a view
Tensor slice(Context& cx, const Tensor& x, int dim, int64_t start, int64_t length);  // a view
// All parts of a dim, as views; cheaper backwards than as many slices.
std::vector<Tensor> split(Context& cx, const Tensor& x, int dim, std::span<const int64_t> lengths);
Tensor concat(Context& cx, std::span<const Tensor> parts, int dim);
Tensor pad(Context& cx, const Tensor& x, int dim, int64_t before, int64_t after);  // with zeros
Tensor contiguous(Context& cx, const Tensor& x);
Tensor cast(Context& cx, const Tensor& x, DType dtype);

// ---- products (matmul.cc, linear.cc)
// --------------------------------------------------------------------
// [..., M, K] x [..., K, N] -> [..., M, N]; leading dims equal or broadcast.
Tensor matmul(Context& cx, const Tensor& a, const Tensor& b);
enum class WeightLayout { kOutIn, kInOut };  // torch Linear; GPT-2's Conv1D
// x [..., in], weight by layout (of more dims: kOutIn, [out, ...], whose other dims are in, row by
// row), bias [out] or an empty handle -> [..., out]: residual +
// activation(x weight + bias), applied to the product's tiles while they are in the cache. residual
// [..., out] or an empty handle.
Tensor linear(Context& cx, const Tensor& x, const Tensor& weight, const Tensor& bias,
              WeightLayout layout, std::optional<Activation> activation = std::nullopt,
              const Tensor& residual = Tensor());

// ---- embedding (embedding.cc)
// ----------------------------------------------------------------------------- ids int64 [...],
// table [V, H], or of other dims, whose rows are those of the last one -> [..., H]. An id outside
// [first_id, first_id + V) gives zeros and no gradient (the other shards of a vocabulary-parallel
// table hold it). padding_id: that row gets no gradient; -1: none.
Tensor embedding(Context& cx, const Tensor& ids, const Tensor& table, int64_t first_id = 0,
                 int64_t padding_id = -1);
// Rows of x [B, T, H] at index int64 [B] -> [B, H]; index -1 gives zeros.
Tensor gather_rows(Context& cx, const Tensor& x, const Tensor& index);

// ---- normalization (norm.cc), softmax, loss (softmax.cc, cross_entropy.cc,
// linear_cross_entropy.cc)
// ----------------------------------- Over the last dim; gamma and beta [H], of x's type or, beside
// a half type, of fp32.
Tensor layer_norm(Context& cx, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                  double epsilon);
Tensor softmax(Context& cx, const Tensor& x, int dim);
// Of the whole vocabulary, the columns [first, first + V/t) of the logits are here; the functions
// combine a tensor of a number a row with those of the other parts. vocabulary 0: all is here.
struct VocabularyShard {
  int64_t vocabulary = 0, first = 0, parts = 1;
  std::function<void(Tensor)> maximum, sum;
};
struct TokenLoss {
  int64_t ignore_index = -100;  // a label that counts for nothing
  double smoothing = 0;         // in [0, 1): this much of the label is spread over all classes
  // What the backward pass will be seeded with: gradients are computed for it at once. Any other
  // seed costs a pass over them.
  double seed = 1;
  Tensor
      device_seed;  // the same where it is known, a scalar on a GPU; then `seed` is not looked at
  VocabularyShard shard;
};
// Sum over rows of -log softmax(logits)[label], smoothed as torch's; logits [..., V/t], labels
// int64
// [...], of the whole vocabulary. Scalar. Divide by the global count of labels to get the mean.
Tensor cross_entropy_sum(Context& cx, const Tensor& logits, const Tensor& labels,
                         const TokenLoss& loss = {});
// The same of the logits x table^T + bias, which never stand in memory as a whole: x [..., H],
// table [V/t, H], bias [V/t] or an empty handle. Forward and backward run at once where gradients
// are wanted, so that the backward pass only hands them out.
Tensor linear_cross_entropy_sum(Context& cx, const Tensor& x, const Tensor& table,
                                const Tensor& labels, const TokenLoss& loss = {},
                                const Tensor& bias = Tensor());

// ---- dropout (dropout.cc)
// ------------------------------------------------------------------------------------ Where a
// local tensor lies in its global one: dim d covers [offset[d], offset[d] + local extent) of
// global[d]. The mask of an element is keyed by its row-major index in `global`.
struct GlobalIndex {
  Shape global;
  std::vector<int64_t> offset;
};
// Zero or x times a factor, by the DropRule of `rate` (random.h) and kept_at. rate 0 returns x.
Tensor dropout(Context& cx, const Tensor& x, double rate, RandomKey key, const GlobalIndex& where);

}  // namespace weft::ops
