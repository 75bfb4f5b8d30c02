#include "worker/parallel/overlapped_linear.h"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/ops/linear_parts.h"
#include "kernels/tensor/strided.h"

namespace weft::parallel {
namespace {

using ops::WeightLayout;

constexpr int kTokenDim = -2;

Shape with_tokens(Shape shape, int64_t tokens) {
  shape[kTokenDim] = tokens;
  return shape;
}
Shape with_features(Shape shape, int64_t features) {
  shape[-1] = features;
  return shape;
}

// Of contiguous x [..., T, F]: how many [T, F] it holds, and tokens `part` of one, [length, F].
int64_t rows_of(const Tensor& x) {
  int64_t rows = 1;
  for (int dim = 0; dim < x.shape().dims() - 2; ++dim) rows *= x.shape()[dim];
  return rows;
}
Tensor tokens_of(const Tensor& x, int64_t row, const Part& part) {
  const int64_t width = x.shape()[-1];
  return x.view({part.length, width}, std::array<int64_t, 2>{width, 1},
                (row * x.shape()[kTokenDim] + part.start) * width);
}
Part all_tokens(const Tensor& x) { return {0, x.shape()[kTokenDim]}; }

// The tokens of each rank of the axis.
class TokenParts {
 public:
  explicit TokenParts(const TensorAxis& axis) : comm_(axis.comm), tokens_(axis.tokens) {}

  Part part(int rank) const { return part_of(tokens_, comm_.size(), rank); }
  int64_t tokens() const { return tokens_; }
  int own() const { return comm_.rank(); }
  int away(int shift) const { return (comm_.rank() + shift + comm_.size()) % comm_.size(); }

  // x [..., own tokens, F] -> [..., T, F]. use(from, tokens of it, to) is called for each part as
  // soon as it is there, the own one first: tokens `to` of the whole are tokens `part` of `from`.
  using Use = std::function<void(const Tensor& from, const Part& part, const Part& to)>;
  Tensor gathered(Context& cx, const Tensor& x, const Use& use) const {
    const Tensor own_tokens = as_contiguous(cx.pool, x);
    const int64_t rows = rows_of(x), width = x.shape()[-1];
    const Tensor whole = Tensor::empty(cx.allocator, with_tokens(x.shape(), tokens_), x.dtype());
    const Tensor buffer =
        rows == 1 ? whole : Tensor::empty(cx.allocator, whole.shape(), whole.dtype());
    std::vector<int64_t> counts;
    for (int r = 0; r < comm_.size(); ++r) counts.push_back(rows * part(r).length * width);
    Pending arriving = comm_.start([own_tokens, buffer = buffer, counts](Communicator& c) mutable {
      c.all_gather(own_tokens, buffer, counts);
    });
    use(own_tokens, all_tokens(own_tokens), part(own()));
    arriving.wait();
    int64_t at = 0;
    for (int r = 0; r < comm_.size(); ++r) {
      const Part tokens = part(r);
      for (int64_t row = 0; rows > 1 && row < rows; ++row, at += tokens.length * width) {
        copy_into(cx.pool,
                  buffer.view({tokens.length, width}, std::array<int64_t, 2>{width, 1}, at),
                  tokens_of(whole, row, tokens));
      }
      if (r != own()) use(whole, tokens, tokens);
    }
    return whole;
  }

  // Of x [..., T, K] and matrix [K, N], one product or several that are added up: the sum over the
  // ranks of x matrix, [..., own tokens, N]. meanwhile() is called before anything is waited for.
  struct Factors {
    Tensor x, matrix;
  };
  Tensor scattered(Context& cx, std::span<const Factors> products,
                   const std::function<void()>& meanwhile = {}) const {
    const Tensor& any = products[0].x;
    const auto shape_of = [&](int rank) {
      return with_features(with_tokens(any.shape(), part(rank).length), products[0].matrix.dim(1));
    };
    const auto product = [&](int rank) {
      Tensor sum;
      for (const auto& [x, matrix] : products) {
        const Tensor y = Tensor::empty(cx.allocator, shape_of(rank), x.dtype());
        for (int64_t row = 0; row < rows_of(x); ++row) {
          ops::linear_into(cx, tokens_of(x, row, part(rank)), matrix, Tensor(), std::nullopt,
                           tokens_of(y, row, all_tokens(y)), Tensor(),
                           sum ? tokens_of(sum, row, all_tokens(sum)) : Tensor());
        }
        sum = y;
      }
      return sum;
    };
    std::vector<Tensor> received;
    std::vector<Pending> arriving;
    for (int shift = 1; shift < comm_.size(); ++shift) {
      received.push_back(Tensor::empty(cx.allocator, shape_of(own()), any.dtype()));
      arriving.push_back(comm_.start_send_receive(product(away(shift)), away(shift),
                                                  received.back(), away(-shift)));
    }
    Tensor sum = product(own());
    if (meanwhile) meanwhile();
    sum = cpu::converted(cx.pool, sum, is_half(sum.dtype()) ? DType::kF32 : sum.dtype());
    for (size_t i = 0; i < received.size(); ++i) {
      arriving[i].wait();
      cpu::add_converted(cx.pool, received[i], sum);
    }
    return cpu::converted(cx.pool, sum, any.dtype());
  }

 private:
  Communicator& comm_;
  const int64_t tokens_;
};

class OverlappedOp : public ops::ForwardOp {
 public:
  OverlappedOp(const TensorAxis& axis, WeightLayout layout) : parts_(axis), layout_(layout) {}
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }

 protected:
  Tensor matrix(const Tensor& weight) const { return ops::in_out(weight, layout_); }
  Tensor matrix_back(const Tensor& weight) const { return ops::transposed_view(matrix(weight)); }

  const TokenParts parts_;
  const WeightLayout layout_;
  std::vector<bool> wanted_;  // by input
};

// Inputs: x, the weights, and where there are such a bias of each. Outputs: of each weight.
class GatheredLinear final : public OverlappedOp {
 public:
  GatheredLinear(const TensorAxis& axis, WeightLayout layout, size_t weights,
                 std::optional<ops::Activation> activation, bool biases, bool recorded)
      : OverlappedOp(axis, layout),
        weights_(weights),
        activation_(activation),
        biases_(biases),
        recorded_(recorded) {}
  std::string_view name() const override { return "gathered_linear"; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    std::vector<Tensor> matrices, biases, results;
    for (size_t i = 0; i < weights_; ++i) {
      matrices.push_back(matrix(inputs[1 + i]));
      biases.push_back(biases_ ? as_contiguous(cx.pool, inputs[bias_of(i)]) : Tensor());
      const Shape shape =
          with_features(with_tokens(inputs[0].shape(), parts_.tokens()), matrices.back().dim(1));
      results.push_back(Tensor::empty(cx.allocator, shape, inputs[0].dtype()));
    }
    if (activation_ && recorded_) {
      z_ = Tensor::empty(cx.allocator, results[0].shape(), results[0].dtype());
    }
    whole_ =
        parts_.gathered(cx, inputs[0], [&](const Tensor& from, const Part& part, const Part& to) {
          for (size_t i = 0; i < weights_; ++i) {
            for (int64_t row = 0; row < rows_of(from); ++row) {
              ops::linear_into(cx, tokens_of(from, row, part), matrices[i], biases[i], activation_,
                               tokens_of(results[i], row, to),
                               z_ ? tokens_of(z_, row, to) : Tensor());
            }
          }
        });
    return results;
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    for (const Tensor& input : inputs) wanted_.push_back(input.requires_grad());
    const auto weights = inputs.subspan(1, weights_);
    const Tensor whole = std::move(whole_);
    const bool any = std::ranges::any_of(weights, &Tensor::requires_grad);
    std::vector<Tensor> saved = {any ? whole : Tensor()};
    saved.insert(saved.end(), weights.begin(), weights.end());
    saved.push_back(std::move(z_));
    return saved;
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads(wanted_.size());
    std::vector<TokenParts::Factors> terms;  // of the input's gradient
    std::vector<size_t> inputs;              // their weights
    for (size_t i = 0; i < weights_; ++i) {
      if (!output_grads[i]) continue;
      const Tensor dz = ops::product_gradient(
          cx, activation_, activation_ ? ops::as_rows(cx, saved.back()) : Tensor(),
          ops::as_rows(cx, output_grads[i]),
          biases_ && wanted_[bias_of(i)] ? &grads[bias_of(i)] : nullptr);
      terms.push_back({ops::shaped(dz, output_grads[i].shape()), matrix_back(saved[1 + i])});
      inputs.push_back(1 + i);
    }
    const auto of_weights = [&] {
      for (size_t i = 0; i < terms.size(); ++i) {
        if (!wanted_[inputs[i]]) continue;
        grads[inputs[i]] = ops::weight_gradient(cx, ops::as_rows(cx, saved[0]),
                                                ops::as_rows(cx, terms[i].x), layout_);
      }
    };
    if (!wanted_[0]) {
      of_weights();
      return grads;
    }
    grads[0] = parts_.scattered(cx, terms, of_weights);
    return grads;
  }

 private:
  size_t bias_of(size_t weight) const { return 1 + weights_ + weight; }  // its input

  const size_t weights_;  // how many
  const std::optional<ops::Activation> activation_;
  const bool biases_, recorded_;
  Tensor whole_, z_;  // between forward() and saves()
};

// Inputs: x, weight.
class ScatteredLinear final : public OverlappedOp {
 public:
  using OverlappedOp::OverlappedOp;
  std::string_view name() const override { return "scattered_linear"; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const TokenParts::Factors factors{as_contiguous(cx.pool, inputs[0]), matrix(inputs[1])};
    return {parts_.scattered(cx, {&factors, 1})};
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    for (const Tensor& input : inputs) wanted_.push_back(input.requires_grad());
    x_ = inputs[0].spec();
    return {wanted_[1] ? inputs[0] : Tensor(), inputs[1]};
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads(2);
    const Tensor back = matrix_back(saved[1]);
    if (wanted_[0]) grads[0] = Tensor::empty(cx.allocator, x_.shape, x_.dtype);
    const Tensor dy = parts_.gathered(
        cx, output_grads[0], [&](const Tensor& from, const Part& part, const Part& to) {
          for (int64_t row = 0; wanted_[0] && row < rows_of(from); ++row) {
            ops::linear_into(cx, tokens_of(from, row, part), back, Tensor(), std::nullopt,
                             tokens_of(grads[0], row, to));
          }
        });
    if (wanted_[1]) {
      grads[1] =
          ops::weight_gradient(cx, ops::as_rows(cx, saved[0]), ops::as_rows(cx, dy), layout_);
    }
    return grads;
  }

 private:
  TensorSpec x_;
};

}  // namespace

bool overlaps(const TensorAxis& axis, const Tensor& x) {
  if (!axis.sequence_parallel || axis.comm.size() == 1) return false;
  if (x.dtype() == DType::kF16 && x.device().is_cpu()) return false;
  return axis.tokens / axis.comm.size() >= axis.overlapped_tokens_min;
}

Tensor gathered_linear(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& weight,
                       const Tensor& bias, WeightLayout layout,
                       std::optional<ops::Activation> activation) {
  std::vector<Tensor> inputs = {x, weight};
  if (bias) inputs.push_back(bias);
  bool recorded = false;
  for (const Tensor& input : inputs) recorded |= cx.tape != nullptr && input.requires_grad();
  return ops::run<GatheredLinear>(cx, std::move(inputs), axis, layout, size_t{1}, activation,
                                  static_cast<bool>(bias), recorded);
}

std::vector<Tensor> gathered_linears(Context& cx, const TensorAxis& axis, const Tensor& x,
                                     std::span<const Tensor> weights,
                                     std::span<const Tensor> biases, WeightLayout layout) {
  std::vector<Tensor> inputs = {x};
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  inputs.insert(inputs.end(), biases.begin(), biases.end());
  return apply(cx,
               std::make_unique<GatheredLinear>(axis, layout, weights.size(), std::nullopt,
                                                !biases.empty(), false),
               std::move(inputs));
}

Tensor scattered_linear(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& weight,
                        WeightLayout layout) {
  return ops::run<ScatteredLinear>(cx, {x, weight}, axis, layout);
}

}  // namespace weft::parallel
