// Normalizations beyond layer norm, and log-softmax.
#pragma once

#include "kernels/autograd/op.h"

namespace weft::ops {

// x / sqrt(mean(x^2) + epsilon) * gamma over the last dim (Zhang, Sennrich 2019); gamma [H], of
// x's type or, beside a half type, of fp32.
Tensor rms_norm(Context& cx, const Tensor& x, const Tensor& gamma, double epsilon);  // rms_norm.cc

// x - log(sum(exp(x))) along dim; a row of nothing but -infinity gives zeros. (log_softmax.cc)
Tensor log_softmax(Context& cx, const Tensor& x, int dim);

// ---- per channel (channel_norms.cc): x [N, C, ...], gamma and beta [C]
// Over each of `groups` runs of channels of each sample (Wu, He 2018); groups divides C.
Tensor group_norm(Context& cx, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                  int64_t groups, double epsilon);

// Batch norm (Ioffe, Szegedy 2015) over all dims but the channels'. Running statistics [C] are no
// part of autograd.
struct RunningStatistics {
  Tensor mean, variance;
};
// By the batch's own statistics (biased variance; its sums over N honour Context::block_count).
// `running`, where it is not null, is updated in place: r := (1 - momentum) r + momentum batch, the
// variance unbiased.
Tensor batch_norm_training(Context& cx, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                           double epsilon, RunningStatistics* running = nullptr,
                           double momentum = 0.1);
// By the running statistics, of x's type or, beside a half type, of fp32.
Tensor batch_norm_evaluation(Context& cx, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                             double epsilon, const RunningStatistics& running);

}  // namespace weft::ops
