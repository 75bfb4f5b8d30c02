// One GPU of this process as a Backend: its stream, its scratch memory, its products. Each function
// checks and lays out its tensors and launches; what has no kernel for its dtype or attributes
// throws StatusError(kUnavailable).
//
// Thread safety: one thread at a time. Ownership: belongs to the allocator of gpu.cc, which it
// takes scratch from: stream order makes that safe to release at once.
#pragma once

#include <cuda_runtime_api.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "kernels/cuda/backend.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/matmul.h"

namespace weft::cuda {

// Throws StatusError(kUnavailable) that names what was tried.
void check(cudaError_t error, const char* what);

class GpuMemory;

class Gpu final : public Backend {
 public:
  // Throws StatusError.
  Gpu(int index, GpuMemory& memory);
  ~Gpu() override;
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  cudaStream_t stream() const { return stream_; }
  // While it lives, what is queued goes to another stream. Only for what takes no scratch memory:
  // that is handed out again in the order of the usual stream.
  class OnStream {
   public:
    OnStream(Gpu& gpu, cudaStream_t stream) : gpu_(gpu), usual_(gpu.stream_) {
      gpu.stream_ = stream;
    }
    ~OnStream() { gpu_.stream_ = usual_; }
    OnStream(const OnStream&) = delete;
    OnStream& operator=(const OnStream&) = delete;

   private:
    Gpu& gpu_;
    const cudaStream_t usual_;
  };
  // `look` is called again and again while somebody waits for the stream, and throws where it will
  // never get there (a peer was lost).
  int watch(std::function<void()> look);
  void unwatch(int watch);

  // Throws StatusError(kFailedPrecondition) while work is recorded: "<what> in the middle of it".
  void refuse_in_recording(const char* what) const;
  // What recorded work takes for the seed that it was recorded with.
  void set_seed(uint64_t seed);

  Device device() const override { return {DeviceKind::kCuda, index_}; }
  void copy(const Tensor& from, const Tensor& to) override;
  void add(const Tensor& from, const Tensor& to) override;
  void fill(const Tensor& x, double value) override;
  void upload(void* to, const void* from, size_t bytes) override;
  void download(void* to, const void* from, size_t bytes) override;
  void synchronize() override;

  void binary(ops::Arithmetic kind, const Tensor& a, const Tensor& b, const Tensor& out) override;
  void scale(const Tensor& x, double factor, const Tensor& out) override;
  void activate(ops::Activation kind, const Tensor& x, const Tensor& out) override;
  void activate_backward(ops::Activation kind, const Tensor& x, const Tensor& dy,
                         const Tensor& dx) override;
  void unary(cpu::Unary kind, double a, double b, const Tensor& x, const Tensor& out) override;
  void unary_backward(cpu::Unary kind, double a, double b, const Tensor& x, const Tensor& dy,
                      const Tensor& dx) override;
  void compare(cpu::Compare kind, const Tensor& a, const Tensor& b, const Tensor& out) override;
  void extreme(bool larger, const Tensor& a, const Tensor& b, const Tensor& out) override;
  void where(const Tensor& mask, const Tensor& a, const Tensor& b, const Tensor& out) override;
  void swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) override;
  void swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dy, const Tensor& dgate,
                       const Tensor& dup) override;
  void dropout(const Tensor& x, double rate, RandomKey key, const ops::GlobalIndex& where,
               const Tensor& out) override;
  void sum_middle(const Tensor& x, const ops::Split& split, double factor, int block_count,
                  const Tensor& out) override;

  void softmax(const Tensor& x, const Tensor& y) override;
  void softmax_backward(const Tensor& y, const Tensor& dy, const Tensor& dx) override;
  void layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double epsilon,
                  const Tensor& y, const Tensor& mean, const Tensor& rstd) override;
  void layer_norm_backward(int block_count, const Tensor& x, const Tensor& dy, const Tensor& gamma,
                           const Tensor& mean, const Tensor& rstd, const Tensor& dx,
                           const Tensor& dgamma, const Tensor& dbeta) override;
  void rms_norm(const Tensor& x, const Tensor& gamma, double epsilon, const Tensor& y,
                const Tensor& rstd) override;
  void rms_norm_backward(int block_count, const Tensor& x, const Tensor& dy, const Tensor& gamma,
                         const Tensor& rstd, const Tensor& dx, const Tensor& dgamma) override;
  void cross_entropy(const Tensor& logits, const Tensor& labels, const ops::TokenLoss& loss,
                     const Tensor& dtotal, const Tensor& total) override;
  LinearLoss linear_cross_entropy(const Tensor& x, const Tensor& table, const Tensor& bias,
                                  const Tensor& labels, const ops::TokenLoss& loss,
                                  const WantedGradients& wanted) override;
  void loss_terms(const Tensor& logits, const Tensor& labels, const ops::TokenLoss& loss,
                  const Tensor& largest, const Tensor& terms) override;
  void loss_gradient(const Tensor& lse, const Tensor& labels, const ops::TokenLoss& loss,
                     const Tensor& dtotal, const Tensor& logits) override;
  void reseed(const Tensor& dy, const Tensor& seed, const Tensor& gradient) override;

  void embedding(const Tensor& ids, const Tensor& table, int64_t first_id,
                 const Tensor& out) override;
  void embedding_backward(const Tensor& ids, const Tensor& dy, int64_t first_id, int64_t padding_id,
                          int block_count, const Tensor& dtable) override;
  void gather_rows(const Tensor& x, const Tensor& index, const Tensor& out) override;
  void gather_rows_backward(const Tensor& dy, const Tensor& index, const Tensor& dx) override;

  void rotary_angles(const Tensor& positions, const Tensor& frequencies, const Tensor& cos,
                     const Tensor& sin) override;
  void rotary(const Tensor& x, const Tensor& cos, const Tensor& sin, ops::RotaryForm form,
              bool backwards, const Tensor& out) override;

  void lstm_gates(const Tensor& gates, const Tensor& c, const Tensor& h, const Tensor& next,
                  const Tensor& bent) override;
  void lstm_gates_backward(const Tensor& bent, const Tensor& c, const Tensor& next,
                           const Tensor& dh, const Tensor& dnext, const Tensor& dgates,
                           const Tensor& dc) override;
  void gru_gates(const Tensor& a, const Tensor& b, const Tensor& h, const Tensor& next,
                 const Tensor& bent) override;
  void gru_gates_backward(const Tensor& bent, const Tensor& b_new, const Tensor& h,
                          const Tensor& dnext, const Tensor& da, const Tensor& db,
                          const Tensor& dh) override;

  void convolve(const cpu::ConvolutionSizes& sizes, const Tensor& x, const Tensor& weight,
                const Tensor& bias, const Tensor& y) override;
  void convolve_back(const cpu::ConvolutionSizes& sizes, const Tensor& dy, const Tensor& weight,
                     const Tensor& dx) override;
  void convolve_weights(const cpu::ConvolutionSizes& sizes, int block_count, const Tensor& x,
                        const Tensor& dy, const Tensor& dweight) override;
  void max_pool(const PoolSizes& sizes, const Tensor& x, const Tensor& y,
                const Tensor& place) override;
  void max_pool_backward(const PoolSizes& sizes, const Tensor& dy, const Tensor& place,
                         const Tensor& dx) override;
  void average_pool(const PoolSizes& sizes, const Tensor& x, const Tensor& y) override;
  void average_pool_backward(const PoolSizes& sizes, const Tensor& dy, const Tensor& dx) override;

  void matmul(const Tensor& a, const Tensor& b, int block_count, const Tensor& out) override;
  bool fused_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& added,
                    const Tensor& before, const Tensor& out) override;
  bool fused_weight_gradient(const Tensor& x, const Tensor& dy, const Tensor& dweight,
                             const Tensor& dbias) override;

  void attention(const Tensor& q, const Tensor& k, const Tensor& v,
                 const attention::Parameters& parameters, Repeats repeats, const Tensor& output,
                 const Tensor& lse) override;
  void attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& output,
                          const Tensor& d_output, const Tensor& lse, const Tensor& delta,
                          const attention::Parameters& parameters, Repeats repeats,
                          const Tensor& dq, const Tensor& dk, const Tensor& dv) override;
  void attention_bias_gradient(const Tensor& q, const Tensor& k, const Tensor& v,
                               const Tensor& d_output, const Tensor& lse, const Tensor& delta,
                               const attention::Parameters& parameters,
                               const Tensor& d_bias) override;
  void attention_distance_gradient(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const Tensor& d_output, const Tensor& lse, const Tensor& delta,
                                   const attention::Parameters& parameters,
                                   const Tensor& d_table) override;
  void attention_sinks_gradient(const Tensor& sinks, const Tensor& lse, const Tensor& delta,
                                const Tensor& d_sinks) override;
  void row_dots(const Tensor& a, const Tensor& b, const Tensor& out) override;
  void attention_merge(const Tensor& output, const Tensor& lse, const Tensor& other_output,
                       const Tensor& other_lse) override;

  void log_softmax(const Tensor& x, const Tensor& y) override;
  void log_softmax_backward(const Tensor& y, const Tensor& dy, const Tensor& dx) override;
  void extreme_along(bool larger, const Tensor& x, const ops::Split& split, const Tensor& values,
                     const Tensor& places) override;
  void cumulative_sum(const Tensor& x, const ops::Split& split, bool reversed,
                      const Tensor& out) override;
  void flip(const Tensor& x, int dim, const Tensor& out) override;
  void sort(const Tensor& x, bool descending, const Tensor& values, const Tensor& places) override;
  void take(const Tensor& x, int dim, const Tensor& index, ops::Numbers numbers,
            const Tensor& out) override;
  void put(int dim, const Tensor& index, const Tensor& source, const Tensor& out) override;
  void add_at(int dim, const Tensor& index, ops::Numbers numbers, const Tensor& source,
              const Tensor& out) override;
  void one_hot(const Tensor& ids, ops::Numbers numbers, const Tensor& out) override;
  void triangular_mask(int64_t diagonal, const Tensor& out) override;
  void segment_sum(const Tensor& x, const Tensor& segment, const Tensor& out) override;
  void segment_max(const Tensor& x, const Tensor& segment, const Tensor& out,
                   const Tensor& place) override;
  void segment_max_backward(const Tensor& dy, const Tensor& place, const Tensor& dx) override;
  void segment_softmax(const Tensor& x, const Tensor& segment, int64_t count,
                       const Tensor& out) override;
  void segments_of_offsets(const Tensor& offsets, const Tensor& out) override;
  void group_norm(int64_t groups, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                  double epsilon, const Tensor& y, const Tensor& mean, const Tensor& rstd) override;
  void batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double epsilon,
                  int block_count, const Tensor& y, const Tensor& mean, const Tensor& variance,
                  const Tensor& rstd) override;
  void channel_norm_backward(int64_t groups, int block_count, const Tensor& x, const Tensor& dy,
                             const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                             const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta) override;
  void ctc(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
           const Tensor& target_lengths, int64_t blank, const Tensor& loss) override;
  void ctc_backward(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                    const Tensor& target_lengths, int64_t blank, const Tensor& dloss,
                    const Tensor& dx) override;
  void compared(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& scores) override;
  void compared_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& dscores,
                         const Tensor& dq, const Tensor& dk, const Tensor& dv_by_row) override;
  void prefix_product(const Tensor& q, const Tensor& k, const Tensor& v, bool reversed,
                      const Tensor& y) override;
  void relative_scores(const Tensor& q, const attention::RelativeTerms& terms, double scale,
                       Repeats repeats, const Tensor& scores) override;
  void relative_scores_backward(const Tensor& q, const attention::RelativeTerms& terms,
                                double scale, Repeats repeats, const Tensor& dscores,
                                const RelativeGradients& gradients) override;
  void draw(const Tensor& scores, RandomKey key, const ops::GlobalIndex& where,
            const Tensor& index) override;
  void rows_of_index(const Tensor& index, int64_t extent, const Tensor& out) override;

  std::string kind() const override;
  void in_pass(const std::function<void()>& work) override;
  Result<std::unique_ptr<Recording>> record(
      uint64_t seed, const std::function<std::vector<Tensor>()>& work) override;

  void sum_of_squares(std::span<const Tensor> xs, const Tensor& out) override;
  void largest_size(std::span<const Tensor> xs, const Tensor& largest) override;
  void cut_squares(std::span<const Tensor> xs, double first, double second,
                   const Tensor& sums) override;
  void adamw(std::span<const AdamWUpdate> updates) override;

 private:
  class Relative;  // gpu_relative.cc

  Tensor scratch(Shape shape, DType dtype = DType::kF32) const;
  Tensor contiguous(const Tensor& x);  // x itself where it is
  Tensor weights(const Tensor& x);     // the same, and in fp32 where x is of a half type
  attention::Parameters contiguous(attention::Parameters parameters);
  Tensor with_tight_features(const Tensor& x);  // [B, N, T, D]
  // Where cuDNN is to compute it; false: nothing is done.
  bool run_by_cudnn(CudnnCall& call, Repeats repeats);
  // Columns of the samples of x as the right sides of products, [N, G, C / G taps, places].
  Tensor columns_of(const cpu::ConvolutionSizes& sizes, const Tensor& x);
  // Where the library has this product of two matrices.
  bool run_fused(Product& call, const Tensor& a, const Tensor& b, const Tensor& out);
  // The gradient of the weights, fp32, of the samples of blocks [first, last), merged in a binary
  // tree; x and dy contiguous.
  void weights_of_blocks(const cpu::ConvolutionSizes& sizes, const Tensor& x, const Tensor& dy,
                         int64_t blocks, int64_t first, int64_t last, const Tensor& dweight);
  // The product of matrices a [batch..., m, k] and b, each as the library takes it.
  void product(const Tensor& a, const Tensor& b, const Tensor& out);
  // The sum of blocks [first, last) of the summed extent, merged in a binary tree.
  void product_blocks(const Tensor& a, const Tensor& b, int64_t blocks, int64_t first, int64_t last,
                      const Tensor& out);
  // Losses of rows of logits [rows, V/t], which become their gradient where dtotal is given.
  void row_losses(const Tensor& logits, const Tensor& labels, const ops::TokenLoss& loss,
                  const Tensor& dtotal, const Tensor& losses);
  void add_all(const Tensor& losses, const Tensor& total);
  // The product, with what `out` holds where it adds.
  void product_onto(const Tensor& a, const Tensor& b, bool adds, const Tensor& out);
  // The elements of each of the `count` segments from `first`: segments.cu.
  struct Members {
    Tensor start, order;
  };
  Members members_of(const Tensor& segment, int64_t first, int64_t count, ops::Numbers numbers);
  // What is said of logits of this width.
  LossRules loss_rules(const ops::TokenLoss& loss, int64_t width) const;
  void activate_device() const;
  DeviceKey device_key(RandomKey key) const;
  Outside outside(ops::Numbers numbers) const {
    return {numbers == ops::Numbers::kNone ? nullptr : note_, numbers};
  }
  void wait_for_stream();

  // Pinned copies of what is on its way to the GPU.
  struct Upload {
    cudaEvent_t done;
    Tensor staged;
  };
  void drop_finished_uploads(size_t left_max);

  const int index_;
  GpuMemory& parts_;   // the memory that it belongs to,
  Allocator& memory_;  // as everybody knows it
  const std::unique_ptr<Allocator> pinned_ = make_pinned_allocator();
  const Tensor note_memory_;    // pinned: a GPU writes where the host reads
  Note* const note_;            // of the first number since the last wait that names nothing
  std::deque<Upload> uploads_;  // oldest first
  std::map<int, std::function<void()>> watches_;
  int next_watch_ = 1;
  cudaStream_t stream_ = nullptr;
  int capability_ = 0;  // of its processors, 90: 9.0
  bool sm90_ = false;   // it runs kernels of sm_90a
  std::unique_ptr<Matmul> matmul_;
  std::optional<Result<std::unique_ptr<CudnnAttention>>> cudnn_;  // once it was wanted
  std::optional<uint64_t> recorded_seed_;                         // while work is recorded
  Tensor seed_;                       // what recordings read, a number on the GPU
  std::optional<uint64_t> seed_now_;  // its value
};

}  // namespace weft::cuda
