// Connectionist temporal classification (Graves et al. 2006, section 4): sums over all paths that
// collapse to the targets, in double and in logarithms, a row (one b of [T, B, C]) at a time.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/losses.h"
#include "kernels/ops/out_of_range.h"

namespace weft::ops {
namespace {

constexpr double kNone = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
  const double larger = std::max(a, b);
  return larger == kNone ? kNone : larger + std::log1p(std::exp(std::min(a, b) - larger));
}

// One row: the extended targets (a blank before, between and after the labels) and log p of each of
// them at each time.
struct Row {
  std::vector<int64_t> extended;
  std::vector<double> log_sums;  // of exp(logits) by time
  std::vector<double> log_p;     // [time][state]
  int64_t times = 0, states = 0;

  double at(int64_t t, int64_t s) const { return log_p[static_cast<size_t>(t * states + s)]; }
  // Whether state s may be entered from s - 2: a label unlike the one before.
  bool skips(int64_t s) const {
    return s >= 2 && s % 2 == 1 &&
           extended[static_cast<size_t>(s)] != extended[static_cast<size_t>(s - 2)];
  }
};

template <typename T>
Row row_of(const T* logits, int64_t step, int64_t classes, const int64_t* targets, int64_t times,
           int64_t labels, int64_t blank) {
  Row row;
  row.times = times;
  row.states = 2 * labels + 1;
  row.extended.assign(static_cast<size_t>(row.states), blank);
  for (int64_t i = 0; i < labels; ++i) row.extended[static_cast<size_t>(2 * i + 1)] = targets[i];
  for (int64_t t = 0; t < times; ++t) {
    const T* x = logits + t * step;
    const double largest = static_cast<double>(*std::max_element(x, x + classes));
    double total = 0;
    for (int64_t c = 0; c < classes; ++c) total += std::exp(static_cast<double>(x[c]) - largest);
    row.log_sums.push_back(largest + std::log(total));
    for (const int64_t label : row.extended) {
      row.log_p.push_back(static_cast<double>(x[label]) - row.log_sums.back());
    }
  }
  return row;
}

// log of the sum over paths that reach each state at each time from the start, p of it included.
std::vector<double> forward_sums(const Row& row) {
  std::vector<double> alpha(row.log_p.size(), kNone);
  for (int64_t t = 0; t < row.times; ++t) {
    double* now = alpha.data() + t * row.states;
    const double* before = now - row.states;
    for (int64_t s = 0; s < row.states; ++s) {
      double sum = t == 0 && s < 2 ? 0 : kNone;
      if (t > 0) {
        sum = before[s];
        if (s > 0) sum = log_add(sum, before[s - 1]);
        if (row.skips(s)) sum = log_add(sum, before[s - 2]);
      }
      now[s] = sum + row.at(t, s);
    }
  }
  return alpha;
}

// The same from each state to the end, p of it included.
std::vector<double> backward_sums(const Row& row) {
  std::vector<double> beta(row.log_p.size(), kNone);
  for (int64_t t = row.times - 1; t >= 0; --t) {
    double* now = beta.data() + t * row.states;
    const double* after = now + row.states;
    for (int64_t s = 0; s < row.states; ++s) {
      double sum = t == row.times - 1 && s >= row.states - 2 ? 0 : kNone;
      if (t < row.times - 1) {
        sum = after[s];
        if (s + 1 < row.states) sum = log_add(sum, after[s + 1]);
        if (s + 2 < row.states && row.skips(s + 2)) sum = log_add(sum, after[s + 2]);
      }
      now[s] = sum + row.at(t, s);
    }
  }
  return beta;
}

double log_likelihood(const Row& row, const std::vector<double>& alpha) {
  if (row.times == 0) return row.states == 1 ? 0 : kNone;
  const double* last = alpha.data() + (row.times - 1) * row.states;
  return row.states == 1 ? last[0] : log_add(last[row.states - 1], last[row.states - 2]);
}

// d(-log p) / d(logits): softmax minus how likely each class is at each time, given the targets.
template <typename T>
void gradient_of(const Row& row, const T* logits, int64_t step, int64_t classes, double dy, T* dx) {
  const std::vector<double> alpha = forward_sums(row), beta = backward_sums(row);
  const double total = log_likelihood(row, alpha);
  if (total == kNone) return;
  std::vector<double> posterior(static_cast<size_t>(classes));
  for (int64_t t = 0; t < row.times; ++t) {
    std::fill(posterior.begin(), posterior.end(), 0.0);
    for (int64_t s = 0; s < row.states; ++s) {
      const size_t at = static_cast<size_t>(t * row.states + s);
      const double path = alpha[at] + beta[at] - row.log_p[at] - total;
      posterior[static_cast<size_t>(row.extended[static_cast<size_t>(s)])] += std::exp(path);
    }
    for (int64_t c = 0; c < classes; ++c) {
      const double p = std::exp(static_cast<double>(logits[t * step + c]) -
                                row.log_sums[static_cast<size_t>(t)]);
      dx[t * step + c] = static_cast<T>(dy * (p - posterior[static_cast<size_t>(c)]));
    }
  }
}

// Inputs: logits, targets, input_lengths, target_lengths (the integers checked).
template <typename T, typename F>
void for_batch(Context& cx, std::span<const Tensor> inputs, int64_t blank, F f) {
  const Tensor targets = as_contiguous(cx.pool, inputs[1]);
  const Tensor times = as_contiguous(cx.pool, inputs[2]);
  const Tensor labels = as_contiguous(cx.pool, inputs[3]);
  const int64_t batch = inputs[0].dim(1), classes = inputs[0].dim(2), width = targets.dim(1);
  cx.pool.parallel_for(batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      f(b, row_of(inputs[0].data<T>() + b * classes, batch * classes, classes,
                  targets.data<int64_t>() + b * width, times.data<int64_t>()[b],
                  labels.data<int64_t>()[b], blank));
    }
  });
}

// Inputs: logits, targets, input_lengths, target_lengths, dy.
class CtcBackward final : public Kernel {
 public:
  explicit CtcBackward(int64_t blank) : blank_(blank) {}
  std::string_view name() const override { return "ctc_backward"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).ctc_backward(inputs[0], inputs[1], inputs[2], inputs[3], blank_, inputs[4],
                                   outputs[0]);
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    std::vector<Tensor> plain(inputs.begin(), inputs.end());
    plain[0] = as_contiguous(cx.pool, inputs[0]);
    const Tensor dy = as_contiguous(cx.pool, inputs[4]);
    const int64_t classes = plain[0].dim(2), step = plain[0].dim(1) * classes;
    dispatch_floating(plain[0].dtype(), [&]<typename T>() {
      std::fill_n(outputs[0].data<T>(), outputs[0].elements(), T{0});
      for_batch<T>(cx, plain, blank_, [&](int64_t b, const Row& row) {
        gradient_of(row, plain[0].data<T>() + b * classes, step, classes,
                    static_cast<double>(dy.data<T>()[b]), outputs[0].data<T>() + b * classes);
      });
    });
  }

 private:
  const int64_t blank_;
};

class Ctc final : public Op {
 public:
  explicit Ctc(int64_t blank) : blank_(blank) {}
  std::string_view name() const override { return "ctc"; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).ctc(inputs[0], inputs[1], inputs[2], inputs[3], blank_, outputs[0]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Shape& x = inputs[0].shape();
    bool fits = x.dims() == 3 && inputs[1].shape().dims() == 2 && inputs[1].dim(0) == x[1];
    for (size_t i = 1; i < 4; ++i) fits = fits && inputs[i].dtype() == DType::kI64;
    for (size_t i = 2; i < 4; ++i) fits = fits && inputs[i].shape() == Shape{x[1]};
    WEFT_CHECK(fits && blank_ >= 0 && blank_ < x[2], "ctc of {} with targets {} and blank {}",
               x.to_string(), inputs[1].shape().to_string(), blank_);
    return {{Shape{x[1]}, inputs[0].dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    check_integers(inputs);
    std::vector<Tensor> plain(inputs.begin(), inputs.end());
    plain[0] = as_contiguous(cx.pool, inputs[0]);
    dispatch_floating(plain[0].dtype(), [&]<typename T>() {
      for_batch<T>(cx, plain, blank_, [&](int64_t b, const Row& row) {
        outputs[0].data<T>()[b] = static_cast<T>(-log_likelihood(row, forward_sums(row)));
      });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    return {inputs.begin(), inputs.end()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    return {run_kernel(cx, CtcBackward(blank_),
                       {saved[0], saved[1], saved[2], saved[3], output_grads[0]}, saved[0].spec())};
  }

 private:
  void check_integers(std::span<const Tensor> inputs) const {
    const int64_t classes = inputs[0].dim(2), width = inputs[1].dim(1);
    const std::vector<int64_t> targets = inputs[1].to_vector<int64_t>();
    const std::vector<int64_t> times = inputs[2].to_vector<int64_t>();
    const std::vector<int64_t> labels = inputs[3].to_vector<int64_t>();
    const auto require = [&](Numbers numbers, int64_t value, int64_t end) {
      const bool blank = numbers == Numbers::kTarget && value == blank_;
      if (value < 0 || value >= end || blank) throw_out_of_range({numbers, value, end, blank_});
    };
    for (size_t b = 0; b < times.size(); ++b) {
      require(Numbers::kInputLength, times[b], inputs[0].dim(0) + 1);
      require(Numbers::kTargetLength, labels[b], width + 1);
      for (int64_t i = 0; i < labels[b]; ++i) {
        require(Numbers::kTarget, targets[b * static_cast<size_t>(width) + static_cast<size_t>(i)],
                classes);
      }
    }
  }

  const int64_t blank_;
};

}  // namespace

Tensor ctc_loss(Context& cx, const Tensor& logits, const Tensor& targets,
                const Tensor& input_lengths, const Tensor& target_lengths, int64_t blank) {
  return run<Ctc>(cx, {logits, targets, input_lengths, target_lengths}, blank);
}

}  // namespace weft::ops
