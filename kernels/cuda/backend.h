// A GPU's kernels as ops call them: tensors in, launches out. Ops reach it by backend(cx) from
// their cuda(); nothing else does. Nothing implements it yet: make_allocator (device.h), the one
// way to get one, is kernels/no_cuda's alone.
//
// Tensors are on this device. Where nothing else is said they have any strides, outputs are
// contiguous, floating tensors of one call have one dtype, and an empty handle is an absent tensor.
// What each computes is the cpu() of the op of the same name.
//
// Thread safety and ownership: as Stream.
#pragma once

#include "kernels/autograd/context.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/stream.h"

namespace weft::cuda {

class Backend : public Stream {
 public:
  // ---- by element
  virtual void binary(ops::Arithmetic kind, const Tensor& a, const Tensor& b,
                      const Tensor& out) = 0;  // numpy's broadcasting
  virtual void scale(const Tensor& x, double factor, const Tensor& out) = 0;
  virtual void activate(ops::Activation kind, const Tensor& x, const Tensor& out) = 0;
  virtual void activate_backward(ops::Activation kind, const Tensor& x, const Tensor& dy,
                                 const Tensor& dx) = 0;
  virtual void dropout(const Tensor& x, double rate, RandomKey key, const ops::GlobalIndex& where,
                       const Tensor& out) = 0;

  // ---- reductions; x contiguous as [outer, extent, inner], block_count as in Context
  virtual void sum_middle(const Tensor& x, const ops::Split& split, double factor, int block_count,
                          const Tensor& out) = 0;

  // ---- rows: over the last dim; mean, rstd and lse [rows]
  virtual void softmax(const Tensor& x, const Tensor& y) = 0;
  virtual void softmax_backward(const Tensor& y, const Tensor& dy, const Tensor& dx) = 0;
  virtual void layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double epsilon,
                          const Tensor& y, const Tensor& mean, const Tensor& rstd) = 0;
  virtual void layer_norm_backward(const Tensor& x, const Tensor& dy, const Tensor& gamma,
                                   const Tensor& mean, const Tensor& rstd, const Tensor& dx,
                                   const Tensor& dgamma, const Tensor& dbeta) = 0;
  // A label outside [0, V) that is not ignore_index makes the total NaN.
  virtual void cross_entropy(const Tensor& logits, const Tensor& labels, int64_t ignore_index,
                             const Tensor& total, const Tensor& lse) = 0;
  // Logits are columns [first, first + width) of the vocabulary.
  virtual void cross_entropy_backward(const Tensor& logits, const Tensor& labels, const Tensor& lse,
                                      const Tensor& dtotal, int64_t first, int64_t ignore_index,
                                      const Tensor& dlogits) = 0;
  // The pieces of the loss over a sharded vocabulary (worker/parallel): terms [2, rows].
  virtual void row_maximum(const Tensor& x, const Tensor& out) = 0;
  virtual void loss_terms(const Tensor& logits, const Tensor& labels, const Tensor& maximum,
                          int64_t first, int64_t ignore_index, const Tensor& terms) = 0;
  virtual void loss_total(const Tensor& labels, const Tensor& terms, int64_t vocabulary,
                          int64_t ignore_index, const Tensor& total,
                          const Tensor& maximum_to_lse) = 0;

  // ---- rows by number
  virtual void embedding(const Tensor& ids, const Tensor& table, int64_t first_id,
                         const Tensor& out) = 0;
  virtual void embedding_backward(const Tensor& ids, const Tensor& dy, int64_t first_id,
                                  int64_t padding_id, const Tensor& dtable) = 0;
  virtual void gather_rows(const Tensor& x, const Tensor& index, const Tensor& out) = 0;
  virtual void gather_rows_backward(const Tensor& dy, const Tensor& index, const Tensor& dx) = 0;

  // ---- products: [..., M, K] x [..., K, N], leading dims broadcast; out contiguous
  virtual void matmul(const Tensor& a, const Tensor& b, int block_count, const Tensor& out) = 0;
};

inline Backend& backend(const Context& cx) { return static_cast<Backend&>(*cx.stream()); }

}  // namespace weft::cuda
