// Group and batch norm over x seen as [N, C, S]: rows of S elements, one a sample and channel.
// Numerics: statistics in the tensor's dtype, of bf16 in float, in two passes over what lies
// together, the second of which finds it in the caches; the rows of a batch by Chan, Golub, LeVeque
// 1983, "Algorithms for computing the sample variance".
#include <algorithm>
#include <cmath>

#include "kernels/cpu/vectors.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/norms.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

struct Extents {
  int64_t samples, channels, elements;  // N, C, S
  explicit Extents(const Shape& shape)
      : samples(shape[0]), channels(shape[1]), elements(split_at(shape, 1).inner) {}
  int64_t rows() const { return samples * channels; }
  int64_t grain(int64_t rows_together) const { return 1 + 16384 / (1 + elements * rows_together); }
};

void check_affine(std::string_view op, const Tensor& x, const Tensor& gamma, const Tensor& beta) {
  WEFT_CHECK(x.shape().dims() >= 2 && gamma.spec() == (TensorSpec{Shape{x.dim(1)}, x.dtype()}) &&
                 beta.spec() == gamma.spec(),
             "{} of {} with gamma {} and beta {}", op, x.shape().to_string(),
             gamma.shape().to_string(), beta.shape().to_string());
}

// Sums of dy and of dy xhat of a row into sums [2, N, C].
template <typename S>
void sum_gradients(const Extents& at, int64_t row, const S* x, const S* dy, Wide<S> mean,
                   Wide<S> rstd, const Tensor& sums) {
  Wide<S>* const total = sums.data<Wide<S>>() + row;
  const int64_t from = row * at.elements;
  cpu::vectors<S>().gradient_sums(x + from, dy + from, mean, rstd, at.elements, total,
                                  total + at.rows());
}

// Whether rows of a result are written past the caches.
template <typename S>
cpu::PastCaches past_caches(const Extents& at) {
  const size_t row = static_cast<size_t>(at.elements) * sizeof(S);
  return cpu::PastCaches(row * static_cast<size_t>(at.rows()), row);
}

// Calls of_group(group, past) for each group of a sample, of so many rows: those whose result is
// written past the caches.
template <typename S, typename F>
void for_groups(Context& cx, const Extents& at, int64_t rows, const F& of_group) {
  cx.pool.parallel_for(at.rows() / rows, at.grain(rows), [&](int64_t begin, int64_t end) {
    const cpu::PastCaches past = past_caches<S>(at);
    for (int64_t group = begin; group < end; ++group) of_group(group, past);
  });
}

// y := (x - mean) rstd gamma + beta, each of the channels.
template <typename S>
void normalize_channels(Context& cx, const Extents& at, const Tensor& x, const Wide<S>* mean,
                        const Wide<S>* rstd, const Tensor& gamma, const Tensor& beta, Tensor& y) {
  for_groups<S>(cx, at, 1, [&](int64_t row, bool past) {
    const int64_t c = row % at.channels, from = row * at.elements;
    cpu::vectors<S>().affine(x.data<S>() + from, mean[c], rstd[c] * gamma.data<Wide<S>>()[c],
                             beta.data<Wide<S>>()[c], {y.data<S>() + from, past}, at.elements);
  });
}

// The two halves of sums [2, N, C] summed over N: dbeta and dgamma.
void sum_over_samples(Context& cx, const Tensor& sums, const Extents& at, const Tensor& dgamma,
                      const Tensor& dbeta) {
  const std::array<int64_t, 2> strides{at.channels, 1};
  const Shape shape{at.samples, at.channels};
  const Split split{1, at.samples, at.channels};
  sum_middle(cx, sums.view(shape, strides, 0), split, 1, dbeta);
  sum_middle(cx, sums.view(shape, strides, at.rows()), split, 1, dgamma);
}

// Where the gradients of x, gamma and beta are computed.
std::vector<Tensor> gradients_of(Context& cx, const Tensor& x, const Tensor& gamma) {
  const DType summed = gradient_dtype(gamma.dtype());
  return {Tensor::empty(cx.allocator, x.shape(), x.dtype()),
          Tensor::empty(cx.allocator, gamma.shape(), summed),
          Tensor::empty(cx.allocator, gamma.shape(), summed)};
}

// Inputs: x, dy, gamma, mean and rstd [N, groups]; outputs: dx, dgamma, dbeta.
class GroupNormBackward final : public Kernel {
 public:
  explicit GroupNormBackward(int64_t groups) : groups_(groups) {}
  std::string_view name() const override { return "group_norm_backward"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).channel_norm_backward(groups_, cx.block_count, inputs[0], inputs[1],
                                            inputs[2], inputs[3], inputs[4], outputs[0], outputs[1],
                                            outputs[2]);
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]), dy = as_contiguous(cx.pool, inputs[1]);
    const Tensor gamma = wide(cx, inputs[2]);
    const Extents at(x.shape());
    const int64_t together = at.channels / groups_;
    const Tensor sums =
        Tensor::empty(cx.allocator, Shape{2, at.samples, at.channels}, gamma.dtype());
    dispatch_rows(x.dtype(), [&]<typename S>() {
      using T = Wide<S>;
      const T *mean = inputs[3].data<T>(), *rstd = inputs[4].data<T>(), *scale = gamma.data<T>();
      const T *total = sums.data<T>(), *along = total + at.rows();
      const T count = static_cast<T>(together * at.elements);
      const auto of_group = [&](int64_t group, bool past) {
        const int64_t first = group * together;
        T all = 0, all_along = 0;
        for (int64_t row = first; row < first + together; ++row) {
          sum_gradients(at, row, x.data<S>(), dy.data<S>(), mean[group], rstd[group], sums);
          all += scale[row % at.channels] * total[row];
          all_along += scale[row % at.channels] * along[row];
        }
        const T r = rstd[group], slope = -r * r * all_along / count, offset = -r * all / count;
        for (int64_t row = first; row < first + together; ++row) {
          const int64_t from = row * at.elements;
          cpu::vectors<S>().norm_gradient(x.data<S>() + from, dy.data<S>() + from,
                                          r * scale[row % at.channels], mean[group], slope, offset,
                                          {outputs[0].data<S>() + from, past}, at.elements);
        }
      };
      for_groups<S>(cx, at, together, of_group);
    });
    sum_over_samples(cx, sums, at, outputs[1], outputs[2]);
  }

 private:
  const int64_t groups_;
};

// Inputs: x, gamma, beta. Outputs: y, and mean and rstd [N, groups].
class GroupNorm final : public Op {
 public:
  GroupNorm(int64_t groups, double epsilon) : groups_(groups), epsilon_(epsilon) {}
  std::string_view name() const override { return "group_norm"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  bool rounds(size_t output) const override { return output == 0; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).group_norm(groups_, inputs[0], inputs[1], inputs[2], epsilon_, outputs[0],
                                 outputs[1], outputs[2]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Tensor& x = inputs[0];
    check_affine(name(), x, inputs[1], inputs[2]);
    WEFT_CHECK(groups_ > 0 && x.dim(1) % groups_ == 0, "{} groups of {} channels", groups_,
               x.dim(1));
    const Shape statistics{x.dim(0), groups_};
    const DType dtype = gradient_dtype(x.dtype());
    return {x.spec(), {statistics, dtype}, {statistics, dtype}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    const Tensor gamma = wide(cx, inputs[1]), beta = wide(cx, inputs[2]);
    const Extents at(x.shape());
    const int64_t together = at.channels / groups_, count = together * at.elements;
    dispatch_rows(x.dtype(), [&]<typename S>() {
      using T = Wide<S>;
      T *mean = outputs[1].data<T>(), *rstd = outputs[2].data<T>();
      const auto of_group = [&](int64_t group, bool past) {
        const S* from = x.data<S>() + group * count;
        S* to = outputs[0].data<S>() + group * count;
        T sum = 0, squares = 0;
        cpu::vectors<S>().moments(from, count, &sum, &squares);
        const T m = sum / static_cast<T>(count);
        const T r = T{1} / std::sqrt(squares / static_cast<T>(count) + static_cast<T>(epsilon_));
        mean[group] = m;
        rstd[group] = r;
        for (int64_t k = 0; k < together; ++k) {
          const int64_t channel = (group * together + k) % at.channels;
          cpu::vectors<S>().affine(from + k * at.elements, m, r * gamma.data<T>()[channel],
                                   beta.data<T>()[channel], {to + k * at.elements, past},
                                   at.elements);
        }
      };
      for_groups<S>(cx, at, together, of_group);
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    return {inputs[0], inputs[1], outputs[1].detach(), outputs[2].detach()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads = gradients_of(cx, saved[0], saved[1]);
    GroupNormBackward kernel(groups_);
    const std::array inputs = {saved[0], output_grads[0], saved[1], saved[2], saved[3]};
    run_kernel(cx, kernel, inputs, grads);
    return grads;
  }

 private:
  const int64_t groups_;
  const double epsilon_;
};

// Inputs: x, dy, gamma, mean and rstd [C]; outputs: dx, dgamma, dbeta.
class BatchNormBackward final : public Kernel {
 public:
  std::string_view name() const override { return "batch_norm_backward"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).channel_norm_backward(0, cx.block_count, inputs[0], inputs[1], inputs[2],
                                            inputs[3], inputs[4], outputs[0], outputs[1],
                                            outputs[2]);
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]), dy = as_contiguous(cx.pool, inputs[1]);
    const Tensor gamma = wide(cx, inputs[2]);
    const Extents at(x.shape());
    const Tensor sums =
        Tensor::empty(cx.allocator, Shape{2, at.samples, at.channels}, gamma.dtype());
    dispatch_rows(x.dtype(), [&]<typename S>() {
      using T = Wide<S>;
      const T *mean = inputs[3].data<T>(), *rstd = inputs[4].data<T>();
      cx.pool.parallel_for(at.rows(), at.grain(1), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t c = row % at.channels;
          sum_gradients(at, row, x.data<S>(), dy.data<S>(), mean[c], rstd[c], sums);
        }
      });
      sum_over_samples(cx, sums, at, outputs[1], outputs[2]);
      const T *along = outputs[1].data<T>(), *total = outputs[2].data<T>();
      const T count = static_cast<T>(at.samples * at.elements);
      cx.pool.parallel_for(at.rows(), at.grain(1), [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past = past_caches<S>(at);
        for (int64_t row = begin; row < end; ++row) {
          const int64_t c = row % at.channels, from = row * at.elements;
          const T factor = rstd[c] * gamma.data<T>()[c];
          cpu::vectors<S>().norm_gradient(x.data<S>() + from, dy.data<S>() + from, factor, mean[c],
                                          -factor * rstd[c] * along[c] / count,
                                          -factor * total[c] / count,
                                          {outputs[0].data<S>() + from, past}, at.elements);
        }
      });
    });
  }
};

// Inputs: x, gamma, beta. Outputs: y, and mean, biased variance and rstd [C].
class BatchNorm final : public Op {
 public:
  explicit BatchNorm(double epsilon) : epsilon_(epsilon) {}
  std::string_view name() const override { return "batch_norm"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  bool rounds(size_t output) const override { return output == 0; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).batch_norm(inputs[0], inputs[1], inputs[2], epsilon_, cx.block_count,
                                 outputs[0], outputs[1], outputs[2], outputs[3]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    check_affine(name(), inputs[0], inputs[1], inputs[2]);
    const TensorSpec statistic{inputs[1].shape(), gradient_dtype(inputs[1].dtype())};
    return {inputs[0].spec(), statistic, statistic, statistic};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    const Tensor gamma = wide(cx, inputs[1]), beta = wide(cx, inputs[2]);
    const Extents at(x.shape());
    // Of each row its sum and its squares, at first around its own mean.
    const Shape rows{at.samples, at.channels};
    const Tensor sums = Tensor::empty(cx.allocator, rows, gamma.dtype());
    const Tensor squares = Tensor::empty(cx.allocator, rows, gamma.dtype());
    const Split split{1, at.samples, at.channels};
    const double share = 1 / static_cast<double>(at.samples * at.elements);
    dispatch_rows(x.dtype(), [&]<typename S>() {
      using T = Wide<S>;
      T *mean = outputs[1].data<T>(), *variance = outputs[2].data<T>();
      T *rstd = outputs[3].data<T>(), *sum = sums.data<T>(), *square = squares.data<T>();
      cx.pool.parallel_for(at.rows(), at.grain(1), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          cpu::vectors<S>().moments(x.data<S>() + row * at.elements, at.elements, sum + row,
                                    square + row);
        }
      });
      sum_middle(cx, sums, split, share, outputs[1]);
      const T count = static_cast<T>(at.elements);
      for (int64_t row = 0; row < at.rows() && count > 0; ++row) {
        const T apart = sum[row] / count - mean[row % at.channels];
        square[row] += count * apart * apart;
      }
      sum_middle(cx, squares, split, share, outputs[2]);
      for (int64_t c = 0; c < at.channels; ++c) {
        rstd[c] = T{1} / std::sqrt(variance[c] + static_cast<T>(epsilon_));
      }
      normalize_channels<S>(cx, at, x, mean, rstd, gamma, beta, outputs[0]);
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    return {inputs[0], inputs[1], outputs[1].detach(), outputs[3].detach()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads = gradients_of(cx, saved[0], saved[1]);
    BatchNormBackward kernel;
    const std::array inputs = {saved[0], output_grads[0], saved[1], saved[2], saved[3]};
    run_kernel(cx, kernel, inputs, grads);
    return grads;
  }

 private:
  const double epsilon_;
};

// 1 / sqrt(variance + epsilon), in what x is computed in.
template <typename T>
std::vector<T> reciprocal_roots(const Tensor& variance, double epsilon) {
  std::vector<T> roots(variance.data<T>(), variance.data<T>() + variance.elements());
  for (T& value : roots) value = T{1} / std::sqrt(value + static_cast<T>(epsilon));
  return roots;
}

// Inputs: x, dy, gamma, mean and variance [C]; outputs: dx, dgamma, dbeta.
class BatchNormEvaluationBackward final : public Kernel {
 public:
  explicit BatchNormEvaluationBackward(double epsilon) : epsilon_(epsilon) {}
  std::string_view name() const override { return "batch_norm_evaluation_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]), dy = as_contiguous(cx.pool, inputs[1]);
    const Tensor gamma = wide(cx, inputs[2]), mean = wide(cx, inputs[3]);
    const Tensor variance = wide(cx, inputs[4]);
    const Extents at(x.shape());
    const Tensor sums =
        Tensor::empty(cx.allocator, Shape{2, at.samples, at.channels}, gamma.dtype());
    dispatch_rows(x.dtype(), [&]<typename S>() {
      using T = Wide<S>;
      const std::vector<T> rstd = reciprocal_roots<T>(variance, epsilon_);
      cx.pool.parallel_for(at.rows(), at.grain(1), [&](int64_t begin, int64_t end) {
        const cpu::PastCaches past = past_caches<S>(at);
        for (int64_t row = begin; row < end; ++row) {
          const int64_t c = row % at.channels, from = row * at.elements;
          const T r = rstd[static_cast<size_t>(c)];
          sum_gradients(at, row, x.data<S>(), dy.data<S>(), mean.data<T>()[c], r, sums);
          cpu::vectors<S>().scale(r * gamma.data<T>()[c], dy.data<S>() + from, 1,
                                  {outputs[0].data<S>() + from, past}, at.elements);
        }
      });
    });
    sum_over_samples(cx, sums, at, outputs[1], outputs[2]);
  }

 private:
  const double epsilon_;
};

// Inputs: x, gamma, beta, mean and variance [C].
class BatchNormEvaluation final : public Op {
 public:
  explicit BatchNormEvaluation(double epsilon) : epsilon_(epsilon) {}
  std::string_view name() const override { return "batch_norm_evaluation"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool takes_weights_in_single() const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    const Tensor gamma = wide(cx, inputs[1]), beta = wide(cx, inputs[2]);
    const Tensor mean = wide(cx, inputs[3]), variance = wide(cx, inputs[4]);
    const Extents at(x.shape());
    dispatch_rows(x.dtype(), [&]<typename S>() {
      using T = Wide<S>;
      const std::vector<T> rstd = reciprocal_roots<T>(variance, epsilon_);
      normalize_channels<S>(cx, at, x, mean.data<T>(), rstd.data(), gamma, beta, outputs[0]);
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    return {inputs[0], inputs[1], inputs[3], inputs[4]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads = gradients_of(cx, saved[0], saved[1]);
    BatchNormEvaluationBackward kernel(epsilon_);
    const std::array inputs = {saved[0], output_grads[0], saved[1], saved[2], saved[3]};
    run_kernel(cx, kernel, inputs, grads);
    grads.resize(5);
    return grads;
  }

 private:
  const double epsilon_;
};

void update(Context& cx, const Tensor& running, const Tensor& batch, double momentum,
            double factor) {
  const Tensor blended =
      add(cx, scale(cx, running, 1 - momentum), scale(cx, batch.detach(), momentum * factor));
  copy_into(cx.pool, cast(cx, blended, running.dtype()), running);
}

}  // namespace

Tensor group_norm(Context& cx, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                  int64_t groups, double epsilon) {
  return apply(cx, std::make_unique<GroupNorm>(groups, epsilon), {x, gamma, beta})[0];
}

Tensor batch_norm_training(Context& cx, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                           double epsilon, RunningStatistics* running, double momentum) {
  const std::vector<Tensor> found =
      apply(cx, std::make_unique<BatchNorm>(epsilon), {x, gamma, beta});
  const double count = static_cast<double>(x.elements() / std::max<int64_t>(1, x.dim(1)));
  if (running != nullptr && count > 0) {
    const NoGrad inside(cx);
    update(cx, running->mean, found[1], momentum, 1);
    update(cx, running->variance, found[2], momentum, count / std::max(1.0, count - 1));
  }
  return found[0];
}

Tensor batch_norm_evaluation(Context& cx, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                             double epsilon, const RunningStatistics& running) {
  check_affine("batch_norm", x, gamma, beta);
  WEFT_CHECK(running.mean.shape() == gamma.shape() && running.variance.shape() == gamma.shape() &&
                 scales(running.mean, x) && scales(running.variance, x),
             "batch_norm of {} by running statistics {} and {}", x.shape().to_string(),
             running.mean.shape().to_string(), running.variance.shape().to_string());
  if (cx.device().is_cpu()) {
    return run<BatchNormEvaluation>(
        cx, {x, gamma, beta, running.mean.detach(), running.variance.detach()}, epsilon);
  }
  Shape column{x.dim(1)};
  for (int dim = 2; dim < x.shape().dims(); ++dim) column.push_back(1);
  const Tensor small = Tensor::full(cx.allocator, Shape{}, epsilon, running.variance.dtype());
  const auto of_channels = [&](const Tensor& values) {
    return reshape(cx, cast(cx, values, x.dtype()), column);
  };
  const Tensor factor = multiply(cx, cast(cx, gamma, running.variance.dtype()),
                                 rsqrt(cx, add(cx, running.variance, small)));
  const Tensor centered = subtract(cx, x, of_channels(running.mean));
  return add(cx, multiply(cx, centered, of_channels(factor)), of_channels(beta));
}

}  // namespace weft::ops
