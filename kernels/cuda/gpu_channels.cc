// Group and batch norm, and CTC.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/typed.h"

namespace weft::cuda {
namespace {

// groups 0: statistics of a channel.
ChannelRows rows_of(const Tensor& x, int64_t groups) {
  return {x.dim(0), x.dim(1), ops::split_at(x.shape(), 1).inner,
          groups == 0 ? 0 : x.dim(1) / groups};
}

// The problem over room for it; `room` is kept by the caller.
template <typename T>
CtcProblem<T> problem_of(const Tensor& logits, const Tensor (&integers)[3], int64_t blank,
                         const Tensor (&room)[3]) {
  return {.logits = logits.data<T>(),
          .targets = integers[0].data<int64_t>(),
          .input_lengths = integers[1].data<int64_t>(),
          .target_lengths = integers[2].data<int64_t>(),
          .times = logits.dim(0),
          .batch = logits.dim(1),
          .classes = logits.dim(2),
          .width = integers[0].dim(1),
          .blank = blank,
          .log_sums = room[0].data<double>(),
          .alpha = room[1].data<double>(),
          .beta = room[2] ? room[2].data<double>() : nullptr};
}

// [batch, times, states] of a CTC problem.
Shape states_of(const Tensor& logits, const Tensor& targets) {
  return {logits.dim(1), logits.dim(0), 2 * targets.dim(1) + 1};
}

}  // namespace

void Gpu::group_norm(int64_t groups, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                     double epsilon, const Tensor& y, const Tensor& mean, const Tensor& rstd) {
  activate_device();
  const Tensor from = contiguous(x), weight = contiguous(gamma), bias = contiguous(beta);
  const ChannelRows rows = rows_of(x, groups);
  for_floating(y, "group_norm", [&]<typename T>() {
    group_moments(from.data<T>(), rows.samples * groups, rows.together * rows.elements,
                  static_cast<float>(epsilon), mean.data<float>(), rstd.data<float>(), stream_);
    normalize_channels(rows, from.data<T>(), weight.data<T>(), bias.data<T>(), mean.data<float>(),
                       rstd.data<float>(), y.data<T>(), stream_);
  });
}

void Gpu::batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double epsilon,
                     int block_count, const Tensor& y, const Tensor& mean, const Tensor& variance,
                     const Tensor& rstd) {
  activate_device();
  const Tensor from = contiguous(x), weight = contiguous(gamma), bias = contiguous(beta);
  const ChannelRows rows = rows_of(x, 0);
  const Tensor sums = scratch(Shape{rows.samples, rows.channels});
  const ops::Split split{1, rows.samples, rows.channels};
  const double share = 1 / static_cast<double>(rows.samples * rows.elements);
  for_floating(y, "batch_norm", [&]<typename T>() {
    channel_sums(rows, from.data<T>(), nullptr, sums.data<float>(), stream_);
    sum_middle(sums, split, share, block_count, mean);
    channel_sums(rows, from.data<T>(), mean.data<float>(), sums.data<float>(), stream_);
    sum_middle(sums, split, share, block_count, variance);
    rstd_of(variance.data<float>(), rows.channels, static_cast<float>(epsilon), rstd.data<float>(),
            stream_);
    normalize_channels(rows, from.data<T>(), weight.data<T>(), bias.data<T>(), mean.data<float>(),
                       rstd.data<float>(), y.data<T>(), stream_);
  });
}

void Gpu::channel_norm_backward(int64_t groups, int block_count, const Tensor& x, const Tensor& dy,
                                const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                                const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta) {
  activate_device();
  const Tensor from = contiguous(x), gradient = contiguous(dy), weight = contiguous(gamma);
  const ChannelRows rows = rows_of(x, groups);
  const Tensor total = scratch(Shape{rows.samples, rows.channels}), along = scratch(total.shape());
  const Tensor slopes = scratch(Shape{2 * mean.elements()});
  const ops::Split split{1, rows.samples, rows.channels};
  for_floating(dx, "a norm over channels", [&]<typename T>() {
    const ChannelNormGradient<T> g{.rows = rows,
                                   .x = from.data<T>(),
                                   .dy = gradient.data<T>(),
                                   .gamma = weight.data<T>(),
                                   .mean = mean.data<float>(),
                                   .rstd = rstd.data<float>(),
                                   .dx = dx.data<T>()};
    channel_gradient_sums(g, total.data<float>(), along.data<float>(), stream_);
    sum_middle(total, split, 1, block_count, dbeta);
    sum_middle(along, split, 1, block_count, dgamma);
    channel_gradient(g, (groups == 0 ? dbeta : total).data<float>(),
                     (groups == 0 ? dgamma : along).data<float>(), slopes.data<float>(), stream_);
  });
}

void Gpu::ctc(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
              const Tensor& target_lengths, int64_t blank, const Tensor& loss) {
  activate_device();
  const Tensor from = contiguous(logits);
  const Tensor integers[] = {contiguous(targets), contiguous(input_lengths),
                             contiguous(target_lengths)};
  const Tensor room[] = {scratch({logits.dim(0), logits.dim(1)}, DType::kF64),
                         scratch(states_of(logits, targets), DType::kF64), Tensor()};
  for_floating(loss, "ctc", [&]<typename T>() {
    CtcProblem<T> problem = problem_of<T>(from, integers, blank, room);
    problem.note = note_;
    cuda::ctc(problem, loss.data<T>(), stream_);
  });
}

void Gpu::ctc_backward(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
                       const Tensor& target_lengths, int64_t blank, const Tensor& dloss,
                       const Tensor& dx) {
  activate_device();
  const Tensor from = contiguous(logits), gradient = contiguous(dloss);
  const Tensor integers[] = {contiguous(targets), contiguous(input_lengths),
                             contiguous(target_lengths)};
  const Shape states = states_of(logits, targets);
  const Tensor room[] = {scratch({logits.dim(0), logits.dim(1)}, DType::kF64),
                         scratch(states, DType::kF64), scratch(states, DType::kF64)};
  for_floating(dx, "ctc", [&]<typename T>() {
    cuda::ctc_backward(problem_of<T>(from, integers, blank, room), gradient.data<T>(), dx.data<T>(),
                       stream_);
  });
}

}  // namespace weft::cuda
