#include "kernels/ops/cross_entropy.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/out_of_range.h"
#include "kernels/tensor/transfer.h"

namespace weft::ops {

LabelRule::LabelRule(const TokenLoss& loss, int64_t width) : loss_(loss), width_(width) {
  WEFT_CHECK(loss.smoothing >= 0 && loss.smoothing < 1 && loss.seed != 0,
             "label smoothing {}, seed {}", loss.smoothing, loss.seed);
}

void LabelRule::check(const Tensor& labels) const {
  const int64_t size = loss_.shard.vocabulary > 0 ? loss_.shard.vocabulary : width_;
  on_host<int64_t>(labels, [&](const int64_t* label) {
    for (int64_t row = 0; row < labels.elements(); ++row) {
      if (label[row] == loss_.ignore_index || (label[row] >= 0 && label[row] < size)) continue;
      throw_out_of_range({Numbers::kLabel, label[row], size});
    }
  });
}

// The steps of one row; what they leave in `terms` is combined over the parts between them.
template <typename T>
struct LabelRule::Row {
  const LabelRule& rule;
  T* x;
  int64_t label;
  T *maximum, *sum, *chosen, *total;  // total: of the logits, where there is smoothing

  bool here() const {
    const int64_t at = label - rule.loss_.shard.first;
    return at >= 0 && at < rule.width_;
  }
  T* at_label() const { return x + (label - rule.loss_.shard.first); }
  void take_maximum() const { *maximum = cpu::rows<T>().max(x, rule.width_); }
  void take_exponentials() const {
    *chosen = here() ? *at_label() : T{0};
    *total = rule.loss_.smoothing > 0 ? cpu::rows<T>().sum(x, rule.width_) : T{0};
    *sum = cpu::rows<T>().exp_shifted(x, *maximum, T{1}, x, rule.width_);
  }
  void take_gradient(double size) const {
    const double smoothing = rule.loss_.smoothing, seed = rule.loss_.seed;
    cpu::rows<T>().scale(static_cast<T>(seed / static_cast<double>(*sum)), x, rule.width_);
    if (smoothing > 0) {
      const T even = static_cast<T>(seed * smoothing / size);
      for (int64_t i = 0; i < rule.width_; ++i) x[i] -= even;
    }
    if (here()) *at_label() -= static_cast<T>(seed * (1 - smoothing));
  }
  double loss(double size) const {
    const double smoothing = rule.loss_.smoothing;
    return static_cast<double>(*maximum) + std::log(static_cast<double>(*sum)) -
           (1 - smoothing) * static_cast<double>(*chosen) -
           smoothing / size * static_cast<double>(*total);
  }
};

template <typename T>
double LabelRule::loss_and_gradient(Context& cx, T* logits, const int64_t* labels,
                                    int64_t rows) const {
  const VocabularyShard& shard = loss_.shard;
  const double size = static_cast<double>(shard.vocabulary > 0 ? shard.vocabulary : width_);
  // [maximum], [sum, chosen, total], a row each.
  const Tensor maxima = Tensor::zeros(cx.allocator, {rows}, DTypeOf<T>::value);
  const Tensor terms = Tensor::zeros(cx.allocator, {3, rows}, DTypeOf<T>::value);
  const auto row_at = [&](int64_t row) {
    T* at = terms.data<T>() + row;
    return Row<T>{*this,     logits + row * width_, labels[row], maxima.data<T>() + row, at,
                  at + rows, at + 2 * rows};
  };
  const auto each = [&](auto&& step) {
    cx.pool.parallel_for(rows, 1 + 4096 / (width_ + 1), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        if (labels[row] != loss_.ignore_index) step(row_at(row));
      }
    });
  };
  if (shard.vocabulary == 0) {
    each([&](const Row<T>& row) {
      row.take_maximum();
      row.take_exponentials();
      row.take_gradient(size);
    });
  } else {
    each([](const Row<T>& row) { row.take_maximum(); });
    shard.maximum(maxima);
    each([](const Row<T>& row) { row.take_exponentials(); });
    shard.sum(terms);
    each([&](const Row<T>& row) { row.take_gradient(size); });
  }
  double total = 0;
  for (int64_t row = 0; row < rows; ++row) {
    if (labels[row] == loss_.ignore_index) {
      std::fill_n(logits + row * width_, width_, T{0});
    } else {
      total += row_at(row).loss(size);
    }
  }
  return total;
}

template double LabelRule::loss_and_gradient(Context&, float*, const int64_t*, int64_t) const;
template double LabelRule::loss_and_gradient(Context&, double*, const int64_t*, int64_t) const;

namespace {

// Input: labels. Outputs: the sum; the logits, which become their gradient (on a GPU: where it is
// wanted).
class LossAndGradient final : public Kernel {
 public:
  LossAndGradient(const TokenLoss& loss, bool wanted) : loss_(loss), wanted_(wanted) {}
  std::string_view name() const override { return "cross_entropy_sum"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor &labels = inputs[0], &logits = outputs[1];
    const LabelRule rule(loss_, logits.shape()[-1]);
    rule.check(labels);
    dispatch_floating(logits.dtype(), [&]<typename T>() {
      *outputs[0].data<T>() = static_cast<T>(
          rule.loss_and_gradient(cx, logits.data<T>(), labels.data<int64_t>(), labels.elements()));
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).cross_entropy(outputs[1], inputs[0], loss_,
                                    wanted_ ? loss_.device_seed : Tensor(), outputs[0]);
  }

 private:
  const TokenLoss& loss_;
  const bool wanted_;
};

// Input: dy.
class Reseed final : public Kernel {
 public:
  explicit Reseed(const TokenLoss& loss) : loss_(loss) {}
  std::string_view name() const override { return "reseed"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor& gradient = outputs[0];
    dispatch_floating(gradient.dtype(), [&]<typename T>() {
      const T factor = static_cast<T>(seed_factor(loss_, inputs[0]));
      if (factor == T{1}) return;
      cx.pool.parallel_for(gradient.elements(), 1 << 14, [&](int64_t begin, int64_t end) {
        cpu::rows<T>().scale(factor, gradient.data<T>() + begin, end - begin);
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor& dy = inputs[0];
    const Tensor& seed = loss_.device_seed;
    if (dy.raw() != seed.raw()) cuda::backend(cx).reseed(dy, seed, outputs[0]);
  }

 private:
  const TokenLoss& loss_;
};

// Inputs: logits [..., V/t], labels [...]. Outputs: the sum.
class CrossEntropySum final : public ForwardOp {
 public:
  CrossEntropySum(const TokenLoss& loss, bool recorded) : loss_(loss), recorded_(recorded) {}
  std::string_view name() const override { return "cross_entropy_sum"; }
  bool rounds(size_t) const override { return false; }
  bool native_on_gpu(DType) const override { return true; }

  // The logits' gradient is made at once, where the copy of the logits was.
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Shape& shape = inputs[0].shape();
    WEFT_CHECK(shape.dims() >= 1 && inputs[1].dtype() == DType::kI64 &&
                   Shape(shape.extents().first(static_cast<size_t>(shape.dims() - 1))) ==
                       inputs[1].shape(),
               "cross entropy of logits {} and labels {}", shape.to_string(),
               inputs[1].shape().to_string());
    const Tensor labels = as_contiguous(cx.pool, inputs[1]);
    LossAndGradient kernel(loss_, recorded_);
    const bool changes = recorded_ || cx.device().is_cpu();
    std::array outputs = {Tensor::empty(cx.allocator, Shape{}, gradient_dtype(inputs[0].dtype())),
                          changes ? clone(cx.pool, inputs[0]) : as_contiguous(cx.pool, inputs[0])};
    run_kernel(cx, kernel, std::span(&labels, 1), outputs);
    if (recorded_) gradient_ = outputs[1];
    return {outputs[0]};
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    reseed(cx, loss_, output_grads[0], gradient_);
    return {std::move(gradient_)};
  }

 private:
  const TokenLoss loss_;
  const bool recorded_;
  Tensor gradient_;  // for an output gradient of loss_.seed
};

}  // namespace

TokenLoss with_seed(Context& cx, TokenLoss loss) {
  if (!cx.device().is_cpu() && !loss.device_seed) {
    loss.device_seed = Tensor::full(cx.allocator, Shape{}, loss.seed);
  }
  return loss;
}

double seed_factor(const TokenLoss& loss, const Tensor& dy) {
  const bool wide = dy.dtype() == DType::kF64;
  return read_scalar(dy) / (wide ? loss.seed : double{static_cast<float>(loss.seed)});
}

void reseed(Context& cx, const TokenLoss& loss, const Tensor& dy, const Tensor& gradient) {
  Reseed kernel(loss);
  Tensor output = gradient;
  run_kernel(cx, kernel, std::span(&dy, 1), std::span(&output, 1));
}

Tensor cross_entropy_sum(Context& cx, const Tensor& logits, const Tensor& labels,
                         const TokenLoss& loss) {
  const bool recorded = cx.tape != nullptr && logits.requires_grad();
  return run<CrossEntropySum>(cx, {logits, labels}, with_seed(cx, loss), recorded);
}

}  // namespace weft::ops
