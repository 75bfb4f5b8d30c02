#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/linear_parts.h"
#include "worker/parallel/blocked.h"
#include "worker/parallel/cell_products.h"
#include "worker/parallel/tree_sum.h"

namespace weft::parallel {
namespace {

using cpu::CellCut;
using cpu::Extent;
using cpu::parts_of;
using Extents = std::vector<Extent>;
using ops::WeightLayout;

Tensor shaped(const Tensor& x, const Shape& shape) {
  const Strides strides = row_major_strides(shape);
  return x.view(shape, std::span(strides).first(static_cast<size_t>(shape.dims())), 0);
}

void store(const float* from, float* to, int64_t n) { std::copy_n(from, n, to); }
void store(const float* from, bfloat16* to, int64_t n) { cpu::round(from, to, n); }

template <typename F>
decltype(auto) dispatch(DType dtype, F&& f) {
  if (dtype == DType::kBF16) return f.template operator()<bfloat16>();
  WEFT_CHECK(dtype == DType::kF32, "blocks of {}", dtype_name(dtype));
  return f.template operator()<float>();
}

// Inputs: x, the weights, where there are such a bias of each, and the residual of one weight.
// Outputs: of each weight.
class Linear final : public ops::ForwardOp {
 public:
  Linear(const TensorAxis& axis, const BlockedLinear& map, std::vector<Held> weights, bool biases,
         bool residual, bool recorded)
      : axis_(axis),
        map_(map),
        held_(std::move(weights)),
        weights_(held_.size()),
        biases_(biases),
        residual_(residual),
        recorded_(recorded) {}
  std::string_view name() const override { return "blocked_linear"; }
  bool native(DType half) const override { return half == DType::kBF16; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    limits_ = cell_limits(cx);
    const Tensor x = rows_of(cx, inputs[0], shares(Shared::kOutputs));
    std::vector<Tensor> results;
    for (size_t which = 0; which < weights_; ++which) {
      dispatch(x.dtype(),
               [&]<typename T>() { results.push_back(multiplied<T>(cx, inputs, x, which)); });
    }
    return results;
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    for (const Tensor& input : inputs) wanted_.push_back(input.requires_grad());
    x_ = inputs[0].spec();
    const auto weights = inputs.subspan(1, weights_);
    const bool any = std::ranges::any_of(weights, &Tensor::requires_grad);
    std::vector<Tensor> saved = {any ? inputs[0] : Tensor()};
    saved.insert(saved.end(), weights.begin(), weights.end());
    saved.push_back(std::move(z_));
    return saved;
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads(wanted_.size());
    dispatch(x_.dtype, [&]<typename T>() { backward<T>(cx, saved, output_grads, grads); });
    return grads;
  }

 private:
  bool shares(Shared what) const { return map_.shared == what; }
  // Where the inputs behind the weights are.
  size_t bias_at(size_t which) const { return 1 + weights_ + which; }
  size_t residual_at() const { return bias_at(biases_ ? weights_ : 0); }

  // The replica's tokens, or the rows that stand for them, in blocks.
  Extents tokens(int64_t rows) const {
    int64_t blocks = map_.own_tokens ? axis_.own_blocks() : axis_.token_blocks();
    if (shares(Shared::kNothing)) blocks = std::min(blocks, std::max<int64_t>(rows, 1));
    return cpu::equal_blocks(rows, blocks);
  }
  // This rank's share of the features of each matrix as blocks of a sum: block by block, in each
  // its run of each part. Of features that other ranks hold, too, its share is some.
  std::vector<Extents> summed(std::span<const int64_t> features) const {
    const int blocks = axis_.feature_blocks();
    std::vector<Extents> all(static_cast<size_t>(blocks));
    for (int64_t matrix = 0; matrix < std::ssize(features); ++matrix) {
      const Part own = own_of(static_cast<size_t>(matrix), features[static_cast<size_t>(matrix)]);
      const int64_t part = own.length / map_.parts;
      const Extents runs = cpu::equal_blocks(part, blocks);
      for (int64_t at = 0; at < map_.parts; ++at) {
        const int64_t first = own.start + at * part;
        for (size_t b = 0; b < runs.size(); ++b) {
          all[b].push_back({first + runs[b].start, runs[b].length, matrix});
        }
      }
    }
    return all;
  }
  Part own_of(size_t which, int64_t features) const {
    const Part& own = held_[which].own;
    return own.length > 0 ? own : Part{0, features};
  }
  // The features of a block of each part.
  int64_t block_of(const Part& own) const {
    return own.length / map_.parts / axis_.feature_blocks();
  }
  // All of a matrix' features, by so many, as cells of a result.
  Extents cells(int64_t features, int64_t cell, int64_t most) const {
    const int64_t part = features / map_.parts;
    Extents runs;
    for (const Extent& block : cpu::equal_blocks(part, part / cell)) {
      for (int64_t at = 0; at < map_.parts; ++at) {
        runs.push_back({at * part + block.start, block.length});
      }
    }
    return parts_of(runs, most);
  }
  Extents outputs(size_t which, int64_t out, int64_t most) const {
    if (!shares(Shared::kOutputs)) return parts_of(Extents{{0, out}}, most);
    const int64_t cell = held_[which].cell > 0 ? held_[which].cell : block_of(own_of(which, out));
    return cells(out, cell, std::min(most, limits_.features));
  }
  Extents inputs(int64_t in, int64_t most) const {
    if (shares(Shared::kInputs)) {
      return cells(in, block_of({0, in}), std::min(most, limits_.features));
    }
    return parts_of(Extents{{0, in}}, most);
  }

  // Rows of the replica's tokens: x itself, or gathered from the tensor axis.
  Tensor rows_of(Context& cx, const Tensor& x, bool split) const {
    const Tensor rows = ops::as_rows(cx, x);
    return split ? gathered(cx, axis_.comm, rows) : rows;
  }

  bool out_in() const { return map_.layout == WeightLayout::kOutIn; }
  int64_t in_of(const Tensor& weight) const {
    return weight.dim(map_.layout == WeightLayout::kInOut ? 0 : 1);
  }
  int64_t out_of(const Tensor& weight) const {
    return weight.dim(map_.layout == WeightLayout::kInOut ? 1 : 0);
  }

  template <typename T>
  Tensor multiplied(Context& cx, std::span<const Tensor> inputs, const Tensor& x, size_t which) {
    const Tensor weight = as_contiguous(cx.pool, ops::matrix_of(cx, inputs[1 + which]));
    const int64_t rows = x.dim(0), in = in_of(weight), out = out_of(weight);
    WEFT_CHECK(x.dim(1) == in, "blocks of {} with a weight from {} to {}", x.shape().to_string(),
               in, out);
    const Tensor bias =
        biases_
            ? cpu::converted(cx.pool, as_contiguous(cx.pool, inputs[bias_at(which)]), DType::kF32)
            : Tensor();
    const Operand maps(weight, out_in());  // [in, out]
    CellCut cut{
        parts_of(tokens(rows), limits_.rows), outputs(which, out, limits_.whole), {{{0, in}}}};
    if (!shares(Shared::kInputs)) {
      Shape shape = inputs[0].shape();
      shape[-1] = out;
      if (shares(Shared::kOutputs)) shape = {1, rows, out};
      const Tensor y = Tensor::empty(cx.allocator, shape, x.dtype());
      if (map_.activation && recorded_) z_ = Tensor::empty(cx.allocator, {rows, out}, x.dtype());
      if (cx.device().is_cpu()) {
        const cpu::Matrix<T> left{x.data<T>(), in, false};
        const cpu::Matrix<T> right{weight.data<T>(), weight.dim(1), maps.transposed};
        cpu::gemm_cells<T>(cx.pool, cx.allocator, cut, {&left, 1}, {&right, 1},
                           finish<T>(out, bias, added(cx, inputs, y), y));
      } else {
        const Tensor sums = Tensor::empty(cx.allocator, {rows, out});
        cell_products(cx, cut, x, maps, sums);
        finish_on_gpu(cx, sums, bias, added(cx, inputs, y), shaped(y, sums.shape()));
      }
      return y;
    }
    cut.depth = summed({&in, 1});
    const Tensor term = Tensor::empty(cx.allocator, {rows, out});
    cell_products(cx, cut, x, maps, term);
    const Tensor sum = tree_scatter(cx, axis_.comm, term);
    return joined<T>(cx, bias, added(cx, inputs, sum), sum);
  }

  // The residual of a result, contiguous, or an empty handle.
  Tensor added(Context& cx, std::span<const Tensor> inputs, const Tensor& y) const {
    if (!residual_) return Tensor();
    const Tensor residual = as_contiguous(cx.pool, inputs[residual_at()]);
    WEFT_CHECK(residual.elements() == y.elements() && !map_.activation, "residual {} of {}",
               residual.shape().to_string(), y.shape().to_string());
    return residual;
  }

  template <typename T>
  std::function<void(const cpu::GemmTile&, float*)> finish(int64_t width, const Tensor& bias,
                                                           const Tensor& residual,
                                                           const Tensor& y) const {
    return [=, this](const cpu::GemmTile& tile, float* sums) {
      const cpu::RowKernels<float>& kernels = cpu::rows<float>();
      ops::RowBuffer<T> wide(residual ? tile.columns : 0);
      for (int64_t row = 0; row < tile.rows; ++row, sums += tile.columns) {
        const int64_t at = (tile.row + row) * width + tile.column;
        if (bias) kernels.add(bias.data<float>() + tile.column, sums, tile.columns);
        if (residual) {
          kernels.add(wide.read(residual.data<T>() + at, tile.columns), sums, tile.columns);
        }
        if (z_) store(sums, z_.data<T>() + at, tile.columns);
        if (map_.activation) {
          kernels.curve(static_cast<cpu::Curve>(*map_.activation), sums, sums, tile.columns);
        }
        store(sums, y.data<T>() + at, tile.columns);
      }
    };
  }

  // The same of all cells; sums may be written to.
  void finish_on_gpu(Context& cx, const Tensor& sums, const Tensor& bias, const Tensor& residual,
                     const Tensor& y) const {
    cuda::Backend& gpu = cuda::backend(cx);
    if (bias) gpu.binary(ops::Arithmetic::kAdd, sums, bias, sums);
    if (residual) gpu.add(shaped(residual, sums.shape()), sums);
    if (z_) gpu.copy(sums, z_);
    if (map_.activation) gpu.activate(*map_.activation, sums, sums);
    gpu.copy(sums, y);
  }

  // sum + bias + residual, rounded once.
  template <typename T>
  Tensor joined(Context& cx, const Tensor& bias, const Tensor& residual, const Tensor& sum) const {
    const int64_t rows = sum.dim(0), width = sum.dim(1);
    const Tensor y = Tensor::empty(cx.allocator, {1, rows, width}, DTypeOf<T>::value);
    if (!cx.device().is_cpu()) {
      finish_on_gpu(cx, sum, bias, residual, shaped(y, sum.shape()));
      return y;
    }
    cx.pool.parallel_for(rows, 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
      ops::RowBuffer<T> wide(width);
      for (int64_t row = begin; row < end; ++row) {
        float* at = sum.data<float>() + row * width;
        if (bias) cpu::rows<float>().add(bias.data<float>(), at, width);
        if (residual) {
          cpu::rows<float>().add(wide.read(residual.data<T>() + row * width, width), at, width);
        }
        store(at, y.data<T>() + row * width, width);
      }
    });
    return y;
  }

  // What a weight's product gives back: which weight, itself, the gradient of its product.
  struct Term {
    size_t which = 0;
    Tensor weight, dz;
  };

  template <typename T>
  void backward(Context& cx, std::span<const Tensor> saved, std::span<const Tensor> output_grads,
                std::vector<Tensor>& grads) {
    const bool scattered = shares(Shared::kInputs);
    if (residual_ && wanted_[residual_at()]) grads.back() = output_grads[0];
    std::vector<Term> terms;
    for (size_t which = 0; which < weights_; ++which) {
      if (!output_grads[which]) continue;
      Tensor dz = ops::as_rows(cx, output_grads[which]);
      if (map_.activation) dz = before_activation<T>(cx, saved.back(), dz);
      if (biases_ && wanted_[bias_at(which)]) {
        grads[bias_at(which)] = summed_rows(cx, dz, scattered);
      }
      if (scattered) dz = gathered(cx, axis_.comm, dz);
      const Tensor weight = ops::matrix_of(cx, saved[1 + which]);
      terms.push_back({which, as_contiguous(cx.pool, weight), std::move(dz)});
    }
    if (wanted_[0]) grads[0] = input_gradient(cx, terms);
    if (!saved[0]) return;
    const Tensor x = rows_of(cx, saved[0], shares(Shared::kOutputs));
    for (const Term& term : terms) {
      const size_t at = 1 + term.which;
      if (wanted_[at]) grads[at] = shaped(weight_gradient(cx, x, term), saved[at].shape());
    }
  }

  Tensor input_gradient(Context& cx, std::span<const Term> terms) const {
    std::vector<Tensor> dz, weights;
    std::vector<int64_t> features;
    for (const Term& term : terms) {
      dz.push_back(term.dz);
      weights.push_back(term.weight);
      features.push_back(out_of(term.weight));
    }
    const int64_t rows = dz[0].dim(0), in = in_of(weights[0]), out = features[0];
    const bool sums = shares(Shared::kOutputs);
    const CellCut cut{parts_of(tokens(rows), limits_.rows), inputs(in, limits_.whole),
                      sums ? summed(features) : std::vector<Extents>{{{0, out}}}};
    const Tensor term = Tensor::empty(cx.allocator, {rows, in}, sums ? DType::kF32 : x_.dtype);
    cell_products(cx, cut, {std::move(dz), false}, {std::move(weights), !out_in()}, term);
    return shaped(sums ? tree_scatter(cx, axis_.comm, term) : term, x_.shape);
  }

  Tensor weight_gradient(Context& cx, const Tensor& x, const Term& term) const {
    const Tensor& dz = term.dz;
    const int64_t in = in_of(term.weight), out = out_of(term.weight);
    std::vector<Extents> depth;
    for (const Extent& block : tokens(dz.dim(0))) depth.push_back({block});
    const Tensor gradient = Tensor::empty(cx.allocator, term.weight.shape());
    const bool in_rows = !out_in();  // of the gradient
    const auto to = [&](int64_t most) { return outputs(term.which, out, most); };
    const CellCut cut{in_rows ? inputs(in, limits_.rows) : to(limits_.rows),
                      in_rows ? to(limits_.whole) : inputs(in, limits_.whole), depth};
    cell_products(cx, cut, {in_rows ? x : dz, true}, in_rows ? dz : x, gradient);
    return gradient;
  }

  // The gradient of the activation's input.
  template <typename T>
  Tensor before_activation(Context& cx, const Tensor& z, const Tensor& dy) const {
    const Tensor dz = Tensor::empty(cx.allocator, dy.shape(), dy.dtype());
    if (!cx.device().is_cpu()) {
      cuda::backend(cx).activate_backward(*map_.activation, z, dy, dz);
      return dz;
    }
    const int64_t width = dy.dim(1);
    cx.pool.parallel_for(dy.dim(0), 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
      ops::RowBuffer<T> wide_z(width), wide_dy(width), result(width);
      for (int64_t at = begin * width; at < end * width; at += width) {
        T* const to = dz.data<T>() + at;
        cpu::rows<float>().curve_backward(
            static_cast<cpu::Curve>(*map_.activation), wide_z.read(z.data<T>() + at, width),
            wide_dy.read(dy.data<T>() + at, width), result.target(to), width);
        result.write(to, width);
      }
    });
    return dz;
  }

  // Of the bias, over this rank's tokens; own: those between blocks.
  Tensor summed_rows(Context& cx, const Tensor& dz, bool own) const {
    Context in_blocks = cx;
    in_blocks.block_count = own ? axis_.own_blocks() : static_cast<int>(tokens(dz.dim(0)).size());
    Tensor terms = cpu::converted(cx.pool, dz, DType::kF32);
    // One feature alone would be summed in another order than among others: it comes twice.
    const bool alone = terms.dim(1) == 1;
    if (alone) terms = terms.view({terms.dim(0), 2}, std::array<int64_t, 2>{1, 0}, 0);
    const Tensor sums = ops::sum(in_blocks, terms, 0);
    return alone ? sums.view({1}, std::array<int64_t, 1>{1}, 0) : sums;
  }

  const TensorAxis axis_;
  const BlockedLinear map_;
  const std::vector<Held> held_;  // of each weight
  const size_t weights_;          // how many
  const bool biases_, residual_, recorded_;
  CellLimits limits_;
  Tensor z_;  // between forward() and saves()
  TensorSpec x_;
  std::vector<bool> wanted_;  // by input
};

}  // namespace

TensorAxis blocked_axis(Rank& rank, int64_t tokens) {
  Communicator& tensor = rank.mesh.axis(Axis::kTensor);
  return {tensor, tensor.size() > 1, tokens, rank.blocks, &rank.mesh.axis(Axis::kReplica)};
}

Tensor blocked_linear(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& weight,
                      const Tensor& bias, const BlockedLinear& map, const Tensor& residual) {
  std::vector<Tensor> inputs = {x, weight};
  if (bias) inputs.push_back(bias);
  if (residual) inputs.push_back(residual);
  bool recorded = false;
  for (const Tensor& input : inputs) recorded |= cx.tape != nullptr && input.requires_grad();
  return ops::run<Linear>(cx, std::move(inputs), axis, map, std::vector<Held>{map.held},
                          static_cast<bool>(bias), static_cast<bool>(residual), recorded);
}

std::vector<Tensor> blocked_linears(Context& cx, const TensorAxis& axis, const Tensor& x,
                                    std::span<const Tensor> weights, std::span<const Tensor> biases,
                                    WeightLayout layout, std::span<const Held> held) {
  std::vector<Tensor> inputs = {x};
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  inputs.insert(inputs.end(), biases.begin(), biases.end());
  const BlockedLinear map{layout, Shared::kOutputs};
  std::vector<Held> all(held.begin(), held.end());
  all.resize(weights.size());
  return apply(cx,
               std::make_unique<Linear>(axis, map, std::move(all), !biases.empty(), false, false),
               std::move(inputs));
}

}  // namespace weft::parallel
