// Group and batch norm over x seen as [N, C, S]: rows of S elements, one a sample and channel.
// Numerics: statistics in the tensor's dtype, two passes; long sums by halves.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/vectors.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/elementwise.h"
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

// f(begin, length) summed over pieces of [begin, begin + n) in a tree.
template <typename T, typename F>
T sum_by_halves(int64_t begin, int64_t n, const F& f) {
  constexpr int64_t kLeaf = 1024;
  if (n <= kLeaf) return f(begin, n);
  return sum_by_halves<T>(begin, n / 2, f) + sum_by_halves<T>(begin + n / 2, n - n / 2, f);
}

template <typename T>
T sum_of(const T* x, int64_t n) {
  return sum_by_halves<T>(
      0, n, [x](int64_t at, int64_t length) { return cpu::rows<T>().sum(x + at, length); });
}

template <typename T>
T squares_of(const T* x, T mean, int64_t n) {
  return sum_by_halves<T>(0, n, [x, mean](int64_t at, int64_t length) {
    return cpu::vectors<T>().squares_around(x + at, mean, length);
  });
}

// Inputs: x, dy; mean and rstd of the row's statistics by statistic_of(row). Sums of dy and of
// dy xhat by row into sums [2, N, C].
template <typename T, typename F>
void sum_gradients(Context& cx, const Tensor& x, const Tensor& dy, const T* mean, const T* rstd,
                   const Tensor& sums, F statistic_of) {
  const Extents at(x.shape());
  cx.pool.parallel_for(at.rows(), at.grain(1), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t statistic = statistic_of(row);
      T *total = sums.data<T>() + row, *along = total + at.rows();
      *total = *along = 0;
      for (int64_t done = 0; done < at.elements; done += 4096) {
        T part, part_along;
        const int64_t offset = row * at.elements + done;
        cpu::vectors<T>().gradient_sums(
            x.data<T>() + offset, dy.data<T>() + offset, mean[statistic], rstd[statistic],
            std::min<int64_t>(4096, at.elements - done), &part, &part_along);
        *total += part;
        *along += part_along;
      }
    }
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
    const Tensor gamma = as_contiguous(cx.pool, inputs[2]);
    const Extents at(x.shape());
    const int64_t together = at.channels / groups_;
    const Tensor sums = Tensor::empty(cx.allocator, Shape{2, at.samples, at.channels}, x.dtype());
    dispatch_floating(x.dtype(), [&]<typename T>() {
      const T *mean = inputs[3].data<T>(), *rstd = inputs[4].data<T>(), *scale = gamma.data<T>();
      sum_gradients<T>(cx, x, dy, mean, rstd, sums, [&](int64_t row) { return row / together; });
      const T *total = sums.data<T>(), *along = total + at.rows();
      const T count = static_cast<T>(together * at.elements);
      cx.pool.parallel_for(
          at.samples * groups_, at.grain(together), [&](int64_t begin, int64_t end) {
            for (int64_t group = begin; group < end; ++group) {
              T all = 0, all_along = 0;
              for (int64_t row = group * together; row < (group + 1) * together; ++row) {
                all += scale[row % at.channels] * total[row];
                all_along += scale[row % at.channels] * along[row];
              }
              const T r = rstd[group], slope = -r * r * all_along / count,
                      offset = -r * all / count;
              for (int64_t row = group * together; row < (group + 1) * together; ++row) {
                const int64_t from = row * at.elements;
                cpu::vectors<T>().norm_gradient(x.data<T>() + from, dy.data<T>() + from,
                                                r * scale[row % at.channels], mean[group], slope,
                                                offset, outputs[0].data<T>() + from, at.elements);
              }
            }
          });
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
    const Tensor x = as_contiguous(cx.pool, inputs[0]), gamma = as_contiguous(cx.pool, inputs[1]);
    const Tensor beta = as_contiguous(cx.pool, inputs[2]);
    const Extents at(x.shape());
    const int64_t together = at.channels / groups_, count = together * at.elements;
    dispatch_floating(x.dtype(), [&]<typename T>() {
      T *mean = outputs[1].data<T>(), *rstd = outputs[2].data<T>();
      cx.pool.parallel_for(
          at.samples * groups_, at.grain(together), [&](int64_t begin, int64_t end) {
            for (int64_t group = begin; group < end; ++group) {
              const T* from = x.data<T>() + group * count;
              const T m = sum_of(from, count) / static_cast<T>(count);
              const T variance = squares_of(from, m, count) / static_cast<T>(count);
              const T r = T{1} / std::sqrt(variance + static_cast<T>(epsilon_));
              mean[group] = m;
              rstd[group] = r;
              for (int64_t k = 0; k < together; ++k) {
                const int64_t channel = (group * together + k) % at.channels;
                cpu::vectors<T>().affine(from + k * at.elements, m, r * gamma.data<T>()[channel],
                                         beta.data<T>()[channel],
                                         outputs[0].data<T>() + group * count + k * at.elements,
                                         at.elements);
              }
            }
          });
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
    const Tensor gamma = as_contiguous(cx.pool, inputs[2]);
    const Extents at(x.shape());
    const Tensor sums = Tensor::empty(cx.allocator, Shape{2, at.samples, at.channels}, x.dtype());
    dispatch_floating(x.dtype(), [&]<typename T>() {
      const T *mean = inputs[3].data<T>(), *rstd = inputs[4].data<T>();
      sum_gradients<T>(cx, x, dy, mean, rstd, sums, [&](int64_t row) { return row % at.channels; });
      sum_over_samples(cx, sums, at, outputs[1], outputs[2]);
      const T *along = outputs[1].data<T>(), *total = outputs[2].data<T>();
      const T count = static_cast<T>(at.samples * at.elements);
      cx.pool.parallel_for(at.rows(), at.grain(1), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t c = row % at.channels, from = row * at.elements;
          const T factor = rstd[c] * gamma.data<T>()[c];
          cpu::vectors<T>().norm_gradient(x.data<T>() + from, dy.data<T>() + from, factor, mean[c],
                                          -factor * rstd[c] * along[c] / count,
                                          -factor * total[c] / count, outputs[0].data<T>() + from,
                                          at.elements);
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
    const Tensor x = as_contiguous(cx.pool, inputs[0]), gamma = as_contiguous(cx.pool, inputs[1]);
    const Tensor beta = as_contiguous(cx.pool, inputs[2]);
    const Extents at(x.shape());
    const Tensor sums = Tensor::empty(cx.allocator, Shape{at.samples, at.channels}, x.dtype());
    const Split split{1, at.samples, at.channels};
    const double share = 1 / static_cast<double>(at.samples * at.elements);
    dispatch_floating(x.dtype(), [&]<typename T>() {
      T *mean = outputs[1].data<T>(), *variance = outputs[2].data<T>();
      T *rstd = outputs[3].data<T>(), *partial = sums.data<T>();
      const auto for_rows = [&](auto&& f) {
        cx.pool.parallel_for(at.rows(), at.grain(1), [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row) f(row, x.data<T>() + row * at.elements);
        });
      };
      for_rows([&](int64_t row, const T* from) { partial[row] = sum_of(from, at.elements); });
      sum_middle(cx, sums, split, share, outputs[1]);
      for_rows([&](int64_t row, const T* from) {
        partial[row] = squares_of(from, mean[row % at.channels], at.elements);
      });
      sum_middle(cx, sums, split, share, outputs[2]);
      for (int64_t c = 0; c < at.channels; ++c) {
        rstd[c] = T{1} / std::sqrt(variance[c] + static_cast<T>(epsilon_));
      }
      for_rows([&](int64_t row, const T* from) {
        const int64_t c = row % at.channels;
        cpu::vectors<T>().affine(from, mean[c], rstd[c] * gamma.data<T>()[c], beta.data<T>()[c],
                                 outputs[0].data<T>() + row * at.elements, at.elements);
      });
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
  Shape column{x.dim(1)};
  for (int dim = 2; dim < x.shape().dims(); ++dim) column.push_back(1);
  const Tensor small = Tensor::full(cx.allocator, Shape{}, epsilon, running.variance.dtype());
  const Tensor factor = multiply(cx, gamma, rsqrt(cx, add(cx, running.variance, small)));
  const Tensor centered = subtract(cx, x, reshape(cx, running.mean, column));
  return add(cx, multiply(cx, centered, reshape(cx, factor, column)), reshape(cx, beta, column));
}

}  // namespace weft::ops
