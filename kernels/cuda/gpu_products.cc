// Matrix products of tensors.
#include <algorithm>
#include <array>

#include "kernels/cpu/gemm.h"
#include "kernels/cuda/gpu.h"
#include "kernels/tensor/strided.h"

namespace weft::cuda {
namespace {

int64_t step_of(const Tensor& x, int from_end) {
  return x.strides()[static_cast<size_t>(x.shape().dims() - from_end)];
}

// Whether the last two dims lie as a matrix or its transpose, rows apart.
bool is_matrix(const Tensor& x) {
  const int64_t rows = x.shape()[-2], columns = x.shape()[-1];
  const int64_t row_step = step_of(x, 2), step = step_of(x, 1);
  return ((step == 1 || columns == 1) && (row_step >= columns || rows == 1)) ||
         ((row_step == 1 || rows == 1) && (step >= rows || columns == 1));
}

Operand operand_of(const Tensor& x, int64_t offset, int64_t batch_step) {
  const int64_t rows = x.shape()[-2], columns = x.shape()[-1];
  const int64_t row_step = step_of(x, 2), step = step_of(x, 1);
  const auto* data =
      static_cast<const char*>(x.raw()) + offset * static_cast<int64_t>(size_of(x.dtype()));
  if ((step == 1 || columns == 1) && (row_step >= columns || rows == 1)) {
    return {data, std::max(row_step, columns), 1, batch_step};
  }
  return {data, 1, std::max(step, rows), batch_step};
}

Shape leading(const Shape& shape) {
  return Shape(shape.extents().first(static_cast<size_t>(shape.dims() - 2)));
}

Strides leading_strides(const Tensor& x, const Shape& batch) {
  const size_t dims = static_cast<size_t>(x.shape().dims());
  return ops::broadcast_strides(x.view(leading(x.shape()), x.strides().first(dims - 2), 0), batch);
}

// Columns [begin, end) of the last dim but `from_end` - 1.
Tensor part_of_dim(const Tensor& x, int from_end, int64_t begin, int64_t end) {
  Shape shape = x.shape();
  shape[-from_end] = end - begin;
  return x.view(shape, x.strides(), begin * step_of(x, from_end));
}

Tensor as_one_matrix(const Tensor& x) {  // contiguous
  const int64_t width = x.shape()[-1];
  return x.view(Shape{ops::row_count(x.shape()), width}, std::array<int64_t, 2>{width, 1}, 0);
}

}  // namespace

void Gpu::matmul(const Tensor& a, const Tensor& b, int block_count, const Tensor& out) {
  activate_device();
  if (out.elements() == 0) return;
  const int64_t k = a.shape()[-1];
  if (k == 0) return fill(out, 0);
  const int64_t blocks = std::clamp<int64_t>(block_count, 1, k);
  // Halves are rounded once, after the merge of the blocks.
  if (blocks > 1 && is_half(out.dtype())) {
    const Tensor wide = scratch(out.shape());
    matmul(a, b, block_count, wide);
    return copy(wide, out);
  }
  // A right side that all share is one product of all rows.
  if (b.shape().dims() == 2 && a.shape().dims() > 2 && a.contiguous()) {
    return product_blocks(as_one_matrix(a), b, blocks, 0, blocks, as_one_matrix(out));
  }
  product_blocks(a, b, blocks, 0, blocks, out);
}

bool Gpu::run_fused(Product& call, const Tensor& a, const Tensor& b, const Tensor& out) {
  activate_device();
  if (!is_matrix(a) || !is_matrix(b) || a.elements() == 0 || b.elements() == 0) return false;
  call.type = a.dtype();
  call.out_type = out.dtype();
  call.m = a.dim(0);
  call.n = b.dim(1);
  call.k = a.dim(1);
  call.a = operand_of(a, 0, 0);
  call.b = operand_of(b, 0, 0);
  call.out = out.raw();
  call.out_step = call.n;
  if (!matmul_->supports(call)) return false;
  const Tensor workspace = scratch(Shape{int64_t{Matmul::kWorkspaceBytes}}, DType::kU8);
  matmul_->run(call, workspace.raw(), stream_);
  return true;
}

bool Gpu::fused_linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const Tensor& added, const Tensor& before, const Tensor& out) {
  if (before && !bias) return false;
  Product call;
  call.epilogue = before ? Epilogue::kGeluBias : bias ? Epilogue::kBias : Epilogue::kNone;
  if (bias) call.bias = bias.raw();
  if (added) call.added = added.raw();
  if (before) {
    call.aux = before.raw();
    call.aux_step = weight.dim(1);
  }
  return run_fused(call, x, weight, out);
}

bool Gpu::fused_weight_gradient(const Tensor& x, const Tensor& dy, const Tensor& dweight,
                                const Tensor& dbias) {
  Product call;
  call.epilogue = Epilogue::kBiasGradient;
  call.bias = dbias.raw();
  const Shape turned{x.dim(1), x.dim(0)};
  return run_fused(call, x.view(turned, std::array{step_of(x, 1), step_of(x, 2)}, 0), dy, dweight);
}

void Gpu::product_onto(const Tensor& a, const Tensor& b, bool adds, const Tensor& out) {
  if (!adds) return matmul(a, b, 1, out);
  Product call;
  call.added = out.raw();
  if (run_fused(call, a, b, out)) return;
  const Tensor more = scratch(out.shape(), out.dtype());
  matmul(a, b, 1, more);
  add(more, out);
}

void Gpu::product_blocks(const Tensor& a, const Tensor& b, int64_t blocks, int64_t first,
                         int64_t last, const Tensor& out) {
  if (last - first == 1) {
    const int64_t k = a.shape()[-1], begin = cpu::block_start(k, blocks, first);
    const int64_t end = cpu::block_start(k, blocks, last);
    return product(part_of_dim(a, 1, begin, end), part_of_dim(b, 2, begin, end), out);
  }
  const int64_t half = first + (last - first + 1) / 2;
  const Tensor other = scratch(out.shape(), out.dtype());
  product_blocks(a, b, blocks, first, half, out);
  product_blocks(a, b, blocks, half, last, other);
  add(other, out);
}

// One call a run of the innermost leading dim that both walk evenly.
void Gpu::product(const Tensor& left, const Tensor& right, const Tensor& out) {
  const Tensor a = is_matrix(left) ? left : contiguous(left);
  const Tensor b = is_matrix(right) ? right : contiguous(right);
  const Shape batch = leading(out.shape());
  const size_t dims = static_cast<size_t>(batch.dims());
  const Strides of_a = leading_strides(a, batch), of_b = leading_strides(b, batch);
  const StridedLoop<2> loop(batch, {std::span(of_a).first(dims), std::span(of_b).first(dims)});
  const Tensor workspace = scratch(Shape{int64_t{Matmul::kWorkspaceBytes}}, DType::kU8);
  Product call;
  call.type = a.dtype();
  call.out_type = out.dtype();
  call.m = out.shape()[-2];
  call.n = out.shape()[-1];
  call.k = a.shape()[-1];
  call.batch = loop.inner();
  call.out_step = call.n;
  call.out_batch_step = call.m * call.n;
  loop.for_rows(0, loop.rows(), [&](int64_t start, const std::array<int64_t, 2>& at) {
    call.a = operand_of(a, at[0], loop.inner_stride(0));
    call.b = operand_of(b, at[1], loop.inner_stride(1));
    call.out = static_cast<char*>(out.raw()) +
               start * call.out_batch_step * static_cast<int64_t>(size_of(out.dtype()));
    matmul_->run(call, workspace.raw(), stream_);
  });
}

}  // namespace weft::cuda
