// A GPU's kernels as ops call them: tensors in, launches out. Ops reach it by backend(cx) from
// their cuda(); nothing else does. Without the toolkit there is no Backend, since make_allocator
// (device.h), the one way to get one, is then kernels/no_cuda's.
//
// Tensors are on this device. Where nothing else is said they have any strides, outputs are
// contiguous, floating tensors of one call have one dtype, and an empty handle is an absent tensor.
// What each computes is the cpu() of the op of the same name. Numbers that name nothing (labels,
// segments, lengths; indices, of which `numbers` says whose they are, kNone: nobody has to be told)
// are left out, a result that they would give is NaN or 0, and the next call that waits for the
// device throws ops::to_status().
//
// Thread safety and ownership: as Stream.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/relative.h"
#include "kernels/autograd/context.h"
#include "kernels/cpu/convolution.h"
#include "kernels/cpu/singles.h"
#include "kernels/cpu/update.h"
#include "kernels/cpu/vectors.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/out_of_range.h"
#include "kernels/ops/rotary.h"
#include "kernels/tensor/stream.h"
#include "proto/base/status.h"

namespace weft::cuda {

// Windows over planes; heights and widths as in cpu::ConvolutionSizes.
struct PoolSizes {
  std::array<int64_t, 2> in{}, out{}, kernel{}, stride{}, padding{};
  bool count_padding = false;  // of means
  bool adaptive = false;       // PoolWindow::adaptive
};

// Work that was kept instead of done.
class Recording {
 public:
  virtual ~Recording() = default;
  // Queues the work with random numbers of `seed` instead of the seed that it was recorded with.
  // results: tensors like those that it left, in the same places. False, and nothing is queued:
  // memory that it needs is in use.
  virtual bool queue(uint64_t seed, std::vector<Tensor>& results) = 0;
};

// What AdamW does to one parameter, in place.
struct AdamWUpdate {
  cpu::AdamWFactors factors;
  Tensor gradient;
  Singles parameter;
  Tensor first_moment, second_moment;
  Tensor rounded;  // the new parameter in fp16, or an empty handle
};

class Backend : public Stream {
 public:
  // What the bits of results depend on besides the program: the kind of GPU, the versions of
  // cuBLASLt and cuDNN.
  virtual std::string kind() const = 0;

  // ---- passes: what allocates much, and lets go of nearly all of it before the next one
  // Runs work() with memory from a part of its own.
  virtual void in_pass(const std::function<void()>& work) = 0;
  // The same, but what work() queues is kept instead of done. It leaves nothing but its results,
  // which are contiguous and have no value yet. Error: kFailedPrecondition, kUnavailable: it cannot
  // be recorded, and why.
  virtual Result<std::unique_ptr<Recording>> record(
      uint64_t seed, const std::function<std::vector<Tensor>()>& work) = 0;

  // ---- by element
  virtual void binary(ops::Arithmetic kind, const Tensor& a, const Tensor& b,
                      const Tensor& out) = 0;  // numpy's broadcasting
  virtual void scale(const Tensor& x, double factor, const Tensor& out) = 0;
  virtual void activate(ops::Activation kind, const Tensor& x, const Tensor& out) = 0;
  virtual void activate_backward(ops::Activation kind, const Tensor& x, const Tensor& dy,
                                 const Tensor& dx) = 0;
  virtual void unary(cpu::Unary kind, double a, double b, const Tensor& x, const Tensor& out) = 0;
  virtual void unary_backward(cpu::Unary kind, double a, double b, const Tensor& x,
                              const Tensor& dy, const Tensor& dx) = 0;
  virtual void compare(cpu::Compare kind, const Tensor& a, const Tensor& b, const Tensor& out) = 0;
  virtual void extreme(bool larger, const Tensor& a, const Tensor& b, const Tensor& out) = 0;
  virtual void where(const Tensor& mask, const Tensor& a, const Tensor& b, const Tensor& out) = 0;
  virtual void swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) = 0;
  virtual void swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dy,
                               const Tensor& dgate, const Tensor& dup) = 0;
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
  virtual void layer_norm_backward(int block_count, const Tensor& x, const Tensor& dy,
                                   const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                                   const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta) = 0;
  virtual void rms_norm(const Tensor& x, const Tensor& gamma, double epsilon, const Tensor& y,
                        const Tensor& rstd) = 0;
  virtual void rms_norm_backward(int block_count, const Tensor& x, const Tensor& dy,
                                 const Tensor& gamma, const Tensor& rstd, const Tensor& dx,
                                 const Tensor& dgamma) = 0;
  // The sum of the losses of logits [..., V/t], contiguous, which become their gradient for
  // *dtotal; without a dtotal they stay.
  virtual void cross_entropy(const Tensor& logits, const Tensor& labels, const ops::TokenLoss& loss,
                             const Tensor& dtotal, const Tensor& total) = 0;
  // The same of the logits x table^T, x [rows, H], table [V/t, H] contiguous, with the gradients
  // that are wanted for *loss.device_seed: dx in x's type, dtable in fp32.
  struct LinearLoss {
    Tensor total, dx, dtable, dbias;
  };
  struct WantedGradients {
    bool x = false, table = false, bias = false;
  };
  virtual LinearLoss linear_cross_entropy(const Tensor& x, const Tensor& table, const Tensor& bias,
                                          const Tensor& labels, const ops::TokenLoss& loss,
                                          const WantedGradients& wanted) = 0;
  // Of a block of the vocabulary's logits [rows, n], whose first id is loss.shard.first: each row's
  // largest, the sum of exponentials shifted by it and the label's logit (terms [2, rows]; 0: it is
  // not here); and their gradient for *dtotal, of each row's log-sum-exp over all blocks. Rows
  // whose label is ignored have no terms and the gradient 0. Without smoothing.
  virtual void loss_terms(const Tensor& logits, const Tensor& labels, const ops::TokenLoss& loss,
                          const Tensor& largest, const Tensor& terms) = 0;
  virtual void loss_gradient(const Tensor& lse, const Tensor& labels, const ops::TokenLoss& loss,
                             const Tensor& dtotal, const Tensor& logits) = 0;
  // gradient *= *dy / *seed, contiguous.
  virtual void reseed(const Tensor& dy, const Tensor& seed, const Tensor& gradient) = 0;

  // ---- rows by number
  virtual void embedding(const Tensor& ids, const Tensor& table, int64_t first_id,
                         const Tensor& out) = 0;
  // block_count: a power of two.
  virtual void embedding_backward(const Tensor& ids, const Tensor& dy, int64_t first_id,
                                  int64_t padding_id, int block_count, const Tensor& dtable) = 0;
  virtual void gather_rows(const Tensor& x, const Tensor& index, const Tensor& out) = 0;
  virtual void gather_rows_backward(const Tensor& dy, const Tensor& index, const Tensor& dx) = 0;

  // ---- rotary positions
  virtual void rotary_angles(const Tensor& positions, const Tensor& frequencies, const Tensor& cos,
                             const Tensor& sin) = 0;
  virtual void rotary(const Tensor& x, const Tensor& cos, const Tensor& sin, ops::RotaryForm form,
                      bool backwards, const Tensor& out) = 0;

  // ---- recurrent cells: gates side by side; dh and dnext may be absent
  virtual void lstm_gates(const Tensor& gates, const Tensor& c, const Tensor& h, const Tensor& next,
                          const Tensor& bent) = 0;
  virtual void lstm_gates_backward(const Tensor& bent, const Tensor& c, const Tensor& next,
                                   const Tensor& dh, const Tensor& dnext, const Tensor& dgates,
                                   const Tensor& dc) = 0;
  virtual void gru_gates(const Tensor& a, const Tensor& b, const Tensor& h, const Tensor& next,
                         const Tensor& bent) = 0;
  virtual void gru_gates_backward(const Tensor& bent, const Tensor& b_new, const Tensor& h,
                                  const Tensor& dnext, const Tensor& da, const Tensor& db,
                                  const Tensor& dh) = 0;

  // ---- convolution and pooling
  virtual void convolve(const cpu::ConvolutionSizes& sizes, const Tensor& x, const Tensor& weight,
                        const Tensor& bias, const Tensor& y) = 0;
  virtual void convolve_back(const cpu::ConvolutionSizes& sizes, const Tensor& dy,
                             const Tensor& weight, const Tensor& dx) = 0;
  // dweight: fp32, whatever x and dy are.
  virtual void convolve_weights(const cpu::ConvolutionSizes& sizes, int block_count,
                                const Tensor& x, const Tensor& dy, const Tensor& dweight) = 0;
  virtual void max_pool(const PoolSizes& sizes, const Tensor& x, const Tensor& y,
                        const Tensor& place) = 0;
  virtual void max_pool_backward(const PoolSizes& sizes, const Tensor& dy, const Tensor& place,
                                 const Tensor& dx) = 0;
  virtual void average_pool(const PoolSizes& sizes, const Tensor& x, const Tensor& y) = 0;
  virtual void average_pool_backward(const PoolSizes& sizes, const Tensor& dy,
                                     const Tensor& dx) = 0;

  // ---- products: [..., M, K] x [..., K, N], leading dims broadcast; out contiguous, of half types
  // also F32
  virtual void matmul(const Tensor& a, const Tensor& b, int block_count, const Tensor& out) = 0;
  // The two below do nothing and say false where the library does not fuse it: x [M, K],
  // weight [K, N], all of one dtype.
  // out := x weight + bias + added, those that there are; where `before` is wanted that goes there,
  // and its GELU (tanh) to out.
  virtual bool fused_linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                            const Tensor& added, const Tensor& before, const Tensor& out) = 0;
  // dweight := x^T dy, dbias := the sums of dy [M, N] over its rows; of half types both are F32.
  virtual bool fused_weight_gradient(const Tensor& x, const Tensor& dy, const Tensor& dweight,
                                     const Tensor& dbias) = 0;

  // ---- attention: as kernels/attention/block.h; outputs' innermost stride is 1. An empty
  // `output`: that of the whole is not at hand; an empty delta: to be taken where it is needed
  virtual void attention(const Tensor& q, const Tensor& k, const Tensor& v,
                         const attention::Parameters& parameters, Repeats repeats,
                         const Tensor& output, const Tensor& lse) = 0;
  virtual void attention_backward(const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Tensor& output, const Tensor& d_output, const Tensor& lse,
                                  const Tensor& delta, const attention::Parameters& parameters,
                                  Repeats repeats, const Tensor& dq, const Tensor& dk,
                                  const Tensor& dv) = 0;
  virtual void attention_bias_gradient(const Tensor& q, const Tensor& k, const Tensor& v,
                                       const Tensor& d_output, const Tensor& lse,
                                       const Tensor& delta, const attention::Parameters& parameters,
                                       const Tensor& d_bias) = 0;
  virtual void attention_distance_gradient(const Tensor& q, const Tensor& k, const Tensor& v,
                                           const Tensor& d_output, const Tensor& lse,
                                           const Tensor& delta,
                                           const attention::Parameters& parameters,
                                           const Tensor& d_table) = 0;
  virtual void attention_sinks_gradient(const Tensor& sinks, const Tensor& lse, const Tensor& delta,
                                        const Tensor& d_sinks) = 0;
  virtual void row_dots(const Tensor& a, const Tensor& b, const Tensor& out) = 0;
  virtual void attention_merge(const Tensor& output, const Tensor& lse, const Tensor& other_output,
                               const Tensor& other_lse) = 0;

  // ---- along a dim; a Split is of contiguous x
  virtual void log_softmax(const Tensor& x, const Tensor& y) = 0;  // over the last dim
  virtual void log_softmax_backward(const Tensor& y, const Tensor& dy, const Tensor& dx) = 0;
  virtual void extreme_along(bool larger, const Tensor& x, const ops::Split& split,
                             const Tensor& values, const Tensor& places) = 0;
  virtual void cumulative_sum(const Tensor& x, const ops::Split& split, bool reversed,
                              const Tensor& out) = 0;
  virtual void flip(const Tensor& x, int dim, const Tensor& out) = 0;  // of any dtype
  // The first of each sorted row, as many as `values` has.
  virtual void sort(const Tensor& x, bool descending, const Tensor& values,
                    const Tensor& places) = 0;

  // ---- elements by number. An index has the dims of what it is held against, or is
  // one-dimensional: of whole slices.
  virtual void take(const Tensor& x, int dim, const Tensor& index, ops::Numbers numbers,
                    const Tensor& out) = 0;
  // Places named at most once; and sums in the order of `source`, into what `out` holds.
  virtual void put(int dim, const Tensor& index, const Tensor& source, const Tensor& out) = 0;
  virtual void add_at(int dim, const Tensor& index, ops::Numbers numbers, const Tensor& source,
                      const Tensor& out) = 0;
  virtual void one_hot(const Tensor& ids, ops::Numbers numbers, const Tensor& out) = 0;
  virtual void triangular_mask(int64_t diagonal, const Tensor& out) = 0;

  // ---- segments
  virtual void segment_sum(const Tensor& x, const Tensor& segment, const Tensor& out) = 0;
  virtual void segment_max(const Tensor& x, const Tensor& segment, const Tensor& out,
                           const Tensor& place) = 0;
  virtual void segment_max_backward(const Tensor& dy, const Tensor& place, const Tensor& dx) = 0;
  virtual void segment_softmax(const Tensor& x, const Tensor& segment, int64_t count,
                               const Tensor& out) = 0;
  virtual void segments_of_offsets(const Tensor& offsets, const Tensor& out) = 0;

  // ---- norms over channels; statistics and the gradients of gamma and beta are fp32
  virtual void group_norm(int64_t groups, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                          double epsilon, const Tensor& y, const Tensor& mean,
                          const Tensor& rstd) = 0;
  virtual void batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double epsilon,
                          int block_count, const Tensor& y, const Tensor& mean,
                          const Tensor& variance, const Tensor& rstd) = 0;
  // groups 0: batch norm.
  virtual void channel_norm_backward(int64_t groups, int block_count, const Tensor& x,
                                     const Tensor& dy, const Tensor& gamma, const Tensor& mean,
                                     const Tensor& rstd, const Tensor& dx, const Tensor& dgamma,
                                     const Tensor& dbeta) = 0;

  // ---- CTC
  virtual void ctc(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                   const Tensor& target_lengths, int64_t blank, const Tensor& loss) = 0;
  virtual void ctc_backward(const Tensor& logits, const Tensor& targets,
                            const Tensor& input_lengths, const Tensor& target_lengths,
                            int64_t blank, const Tensor& dloss, const Tensor& dx) = 0;

  // ---- other attention
  virtual void compared(const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& scores) = 0;
  virtual void compared_backward(const Tensor& q, const Tensor& k, const Tensor& v,
                                 const Tensor& dscores, const Tensor& dq, const Tensor& dk,
                                 const Tensor& dv_by_row) = 0;
  virtual void prefix_product(const Tensor& q, const Tensor& k, const Tensor& v, bool reversed,
                              const Tensor& y) = 0;
  // What scores have by distance and segment, contiguous. With Repeats::kTopology the bits do not
  // depend on how many rows and heads there are.
  virtual void relative_scores(const Tensor& q, const attention::RelativeTerms& terms, double scale,
                               Repeats repeats, const Tensor& scores) = 0;
  // Contiguous; but for q's in fp32, by row and head: [B, N, R, D], [B, N, 1, D], and with
  // segments [B, N, 1, D] and [B, N, 2, D], which are left as they are without.
  struct RelativeGradients {
    Tensor q, distances, position, segment, segments;
  };
  virtual void relative_scores_backward(const Tensor& q, const attention::RelativeTerms& terms,
                                        double scale, Repeats repeats, const Tensor& dscores,
                                        const RelativeGradients& gradients) = 0;
  virtual void draw(const Tensor& scores, RandomKey key, const ops::GlobalIndex& where,
                    const Tensor& index) = 0;
  virtual void rows_of_index(const Tensor& index, int64_t extent, const Tensor& out) = 0;

  // ---- the optimizer; contiguous fp32
  // out, a double: the squares of all of them.
  virtual void sum_of_squares(std::span<const Tensor> xs, const Tensor& out) = 0;
  // largest, a float: |x| of all of them; 0: there are none; NaN counts as infinite.
  virtual void largest_size(std::span<const Tensor> xs, const Tensor& largest) = 0;
  // sums, two doubles: of all of them, cut as by cpu::UpdateKernels::cut_squares.
  virtual void cut_squares(std::span<const Tensor> xs, double first, double second,
                           const Tensor& sums) = 0;
  // All of these; those that are rounded to the same half type, or none of them.
  virtual void adamw(std::span<const AdamWUpdate> updates) = 0;
};

inline Backend& backend(const Context& cx) { return static_cast<Backend&>(*cx.stream()); }

}  // namespace weft::cuda
