#include <array>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"
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

// Inputs: x, weight, and bias and residual where there are such.
class Linear final : public ops::ForwardOp {
 public:
  Linear(const TensorAxis& axis, const BlockedLinear& map, bool bias, bool residual, bool recorded)
      : axis_(axis), map_(map), bias_(bias), residual_(residual), recorded_(recorded) {}
  std::string_view name() const override { return "blocked_linear"; }
  bool native(DType half) const override { return half == DType::kBF16; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    limits_ = cell_limits(cx);
    Tensor result;
    dispatch(inputs[0].dtype(), [&]<typename T>() { result = multiplied<T>(cx, inputs); });
    return {result};
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    for (size_t i = 0; i < inputs.size(); ++i) wanted_[i] = inputs[i].requires_grad();
    x_ = inputs[0].spec();
    return {wanted_[1] ? inputs[0] : Tensor(), inputs[1], std::move(z_)};
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads(2 + static_cast<size_t>(bias_) + static_cast<size_t>(residual_));
    dispatch(x_.dtype, [&]<typename T>() { backward<T>(cx, saved, output_grads[0], grads); });
    return grads;
  }

 private:
  bool shares(Shared what) const { return map_.shared == what; }

  // The replica's tokens, or the rows that stand for them, in blocks.
  Extents tokens(int64_t rows) const {
    const int64_t blocks = shares(Shared::kNothing)
                               ? std::min<int64_t>(axis_.token_blocks(), std::max<int64_t>(rows, 1))
                               : axis_.token_blocks();
    return cpu::equal_blocks(rows, blocks);
  }
  // This rank's share of features as blocks of a sum: block by block, in each its run of each part.
  std::vector<Extents> summed(int64_t features) const {
    const int blocks = axis_.feature_blocks();
    const int64_t part = features / map_.parts;
    std::vector<Extents> all(static_cast<size_t>(blocks));
    for (int64_t at = 0; at < map_.parts; ++at) {
      const Extents runs = cpu::equal_blocks(part, blocks);
      for (size_t b = 0; b < runs.size(); ++b) {
        all[b].push_back({at * part + runs[b].start, runs[b].length});
      }
    }
    return all;
  }
  // The same as cells of a result.
  Extents cells(int64_t features, int64_t most) const {
    Extents runs;
    for (const Extents& block : summed(features)) {
      runs.insert(runs.end(), block.begin(), block.end());
    }
    return parts_of(runs, most);
  }
  Extents outputs(int64_t out, int64_t most) const {
    if (shares(Shared::kOutputs)) return cells(out, std::min(most, limits_.features));
    return parts_of(Extents{{0, out}}, most);
  }
  Extents inputs(int64_t in, int64_t most) const {
    if (shares(Shared::kInputs)) return cells(in, std::min(most, limits_.features));
    return parts_of(Extents{{0, in}}, most);
  }

  // Rows of the replica's tokens: x itself, or gathered from the tensor axis.
  Tensor rows_of(Context& cx, const Tensor& x, bool split) const {
    const Tensor rows = ops::as_rows(cx, x);
    return split ? gathered(cx, axis_.comm, rows) : rows;
  }

  // The weight as it maps, [in, out].
  Side in_out(const Tensor& weight) const { return {weight, map_.layout == WeightLayout::kOutIn}; }
  int64_t in_of(const Tensor& weight) const {
    return weight.dim(map_.layout == WeightLayout::kInOut ? 0 : 1);
  }
  int64_t out_of(const Tensor& weight) const {
    return weight.dim(map_.layout == WeightLayout::kInOut ? 1 : 0);
  }

  template <typename T>
  Tensor multiplied(Context& cx, std::span<const Tensor> inputs) {
    const Tensor weight = as_contiguous(cx.pool, inputs[1]);
    const Tensor x = rows_of(cx, inputs[0], shares(Shared::kOutputs));
    const int64_t rows = x.dim(0), in = in_of(weight), out = out_of(weight);
    WEFT_CHECK(x.dim(1) == in, "blocks of {} with a weight from {} to {}", x.shape().to_string(),
               in, out);
    const Tensor bias =
        bias_ ? cpu::converted(cx.pool, as_contiguous(cx.pool, inputs[2]), DType::kF32) : Tensor();
    CellCut cut{parts_of(tokens(rows), limits_.rows), outputs(out, limits_.whole), {{{0, in}}}};
    if (!shares(Shared::kInputs)) {
      Shape shape = inputs[0].shape();
      shape[-1] = out;
      if (shares(Shared::kOutputs)) shape = {1, rows, out};
      const Tensor y = Tensor::empty(cx.allocator, shape, x.dtype());
      if (map_.activation && recorded_) z_ = Tensor::empty(cx.allocator, {rows, out}, x.dtype());
      const Side maps = in_out(weight);
      if (cx.device().is_cpu()) {
        cpu::gemm_cells<T>(cx.pool, cx.allocator, cut, {x.data<T>(), in, false},
                           {weight.data<T>(), weight.dim(1), maps.transposed},
                           finish<T>(out, bias, y));
      } else {
        const Tensor sums = Tensor::empty(cx.allocator, {rows, out});
        cell_products(cx, cut, {x}, maps, sums);
        finish_on_gpu(cx, sums, bias, shaped(y, sums.shape()));
      }
      return y;
    }
    cut.depth = summed(in);
    const Tensor term = Tensor::empty(cx.allocator, {rows, out});
    cell_products(cx, cut, {x}, in_out(weight), term);
    const Tensor sum = tree_scatter(cx, axis_.comm, term);
    return joined<T>(cx, sum, bias, residual_ ? inputs[bias_ ? 3 : 2] : Tensor());
  }

  template <typename T>
  std::function<void(const cpu::GemmTile&, float*)> finish(int64_t width, const Tensor& bias,
                                                           const Tensor& y) const {
    return [=, this](const cpu::GemmTile& tile, float* sums) {
      const cpu::RowKernels<float>& kernels = cpu::rows<float>();
      for (int64_t row = 0; row < tile.rows; ++row, sums += tile.columns) {
        const int64_t at = (tile.row + row) * width + tile.column;
        if (bias) kernels.add(bias.data<float>() + tile.column, sums, tile.columns);
        if (z_) store(sums, z_.data<T>() + at, tile.columns);
        if (map_.activation) {
          kernels.curve(static_cast<cpu::Curve>(*map_.activation), sums, sums, tile.columns);
        }
        store(sums, y.data<T>() + at, tile.columns);
      }
    };
  }

  // The same of all cells; sums may be written to.
  void finish_on_gpu(Context& cx, const Tensor& sums, const Tensor& bias, const Tensor& y) const {
    cuda::Backend& gpu = cuda::backend(cx);
    if (bias) gpu.binary(ops::Arithmetic::kAdd, sums, bias, sums);
    if (z_) gpu.copy(sums, z_);
    if (map_.activation) gpu.activate(*map_.activation, sums, sums);
    gpu.copy(sums, y);
  }

  // sum + bias + residual, rounded once.
  template <typename T>
  Tensor joined(Context& cx, const Tensor& sum, const Tensor& bias, const Tensor& residual) const {
    const int64_t rows = sum.dim(0), width = sum.dim(1);
    const Tensor y = Tensor::empty(cx.allocator, {1, rows, width}, DTypeOf<T>::value);
    const Tensor added = residual ? as_contiguous(cx.pool, residual) : Tensor();
    WEFT_CHECK(!added || added.elements() == sum.elements(), "residual {} of {}",
               residual.shape().to_string(), sum.shape().to_string());
    if (!cx.device().is_cpu()) {
      cuda::Backend& gpu = cuda::backend(cx);
      if (bias) gpu.binary(ops::Arithmetic::kAdd, sum, bias, sum);
      if (added) gpu.add(shaped(added, sum.shape()), sum);
      gpu.copy(sum, shaped(y, sum.shape()));
      return y;
    }
    cx.pool.parallel_for(rows, 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
      ops::RowBuffer<T> wide(width);
      for (int64_t row = begin; row < end; ++row) {
        float* at = sum.data<float>() + row * width;
        if (bias) cpu::rows<float>().add(bias.data<float>(), at, width);
        if (added) {
          cpu::rows<float>().add(wide.read(added.data<T>() + row * width, width), at, width);
        }
        store(at, y.data<T>() + row * width, width);
      }
    });
    return y;
  }

  template <typename T>
  void backward(Context& cx, std::span<const Tensor> saved, const Tensor& output_grad,
                std::vector<Tensor>& grads) {
    const bool scattered = shares(Shared::kInputs);
    if (residual_ && wanted_[bias_ ? 3 : 2]) grads.back() = output_grad;
    Tensor dz = ops::as_rows(cx, output_grad);
    if (map_.activation) dz = before_activation<T>(cx, saved[2], dz);
    if (bias_ && wanted_[2]) grads[2] = summed_rows(cx, dz, scattered);
    if (scattered) dz = gathered(cx, axis_.comm, dz);
    const Tensor weight = as_contiguous(cx.pool, saved[1]);
    const int64_t rows = dz.dim(0), in = in_of(weight), out = out_of(weight);
    if (wanted_[0]) {
      const Extents tiles = parts_of(tokens(rows), limits_.rows);
      const CellCut cut{tiles, inputs(in, limits_.whole),
                        shares(Shared::kOutputs) ? summed(out) : std::vector<Extents>{{{0, out}}}};
      const Side back = in_out(weight).turned();
      if (shares(Shared::kOutputs)) {
        const Tensor term = Tensor::empty(cx.allocator, {rows, in});
        cell_products(cx, cut, {dz}, back, term);
        grads[0] = shaped(tree_scatter(cx, axis_.comm, term), x_.shape);
      } else {
        grads[0] = Tensor::empty(cx.allocator, x_.shape, x_.dtype);
        cell_products(cx, cut, {dz}, back, shaped(grads[0], {rows, in}));
      }
    }
    if (!wanted_[1]) return;
    const Tensor x = rows_of(cx, saved[0], shares(Shared::kOutputs));
    std::vector<Extents> depth;
    for (const Extent& block : tokens(rows)) depth.push_back({block});
    grads[1] = Tensor::empty(cx.allocator, weight.shape());
    const bool in_rows = map_.layout == WeightLayout::kInOut;  // of the gradient
    const CellCut cut{in_rows ? inputs(in, limits_.rows) : outputs(out, limits_.rows),
                      in_rows ? outputs(out, limits_.whole) : inputs(in, limits_.whole), depth};
    cell_products(cx, cut, {in_rows ? x : dz, true}, {in_rows ? dz : x}, grads[1]);
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
  const bool bias_, residual_, recorded_;
  CellLimits limits_;
  Tensor z_;  // between forward() and saves()
  TensorSpec x_;
  bool wanted_[4] = {false, false, false, false};
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
  return ops::run<Linear>(cx, std::move(inputs), axis, map, static_cast<bool>(bias),
                          static_cast<bool>(residual), recorded);
}

}  // namespace weft::parallel
