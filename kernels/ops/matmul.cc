#include <algorithm>
#include <limits>

#include "kernels/cpu/gemm.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

constexpr int64_t kStepMax = std::numeric_limits<int>::max();  // what the library can be told

// The last two dims as the library wants them: as they lie, transposed, or else copied.
Tensor as_matrices(Context& cx, const Tensor& x) {
  const size_t dims = static_cast<size_t>(x.shape().dims());
  const int64_t rows = x.shape()[-2], columns = x.shape()[-1];
  const int64_t row_step = x.strides()[dims - 2], step = x.strides()[dims - 1];
  const bool plain = (step == 1 || columns == 1) && (row_step >= columns || rows == 1);
  const bool turned = (row_step == 1 || rows == 1) && (step >= rows || columns == 1);
  const bool near = (row_step <= kStepMax || rows == 1) && (step <= kStepMax || columns == 1);
  return near && (plain || turned) ? x : clone(cx.pool, x);
}

template <typename T>
cpu::Matrix<T> matrix_of(const Tensor& x, int64_t offset) {
  const size_t dims = static_cast<size_t>(x.shape().dims());
  const int64_t rows = x.shape()[-2], columns = x.shape()[-1];
  const int64_t row_step = x.strides()[dims - 2], step = x.strides()[dims - 1];
  const bool plain = (step == 1 || columns == 1) && (row_step >= columns || rows == 1);
  if (plain) return {x.data<T>() + offset, rows == 1 ? columns : row_step, false};
  return {x.data<T>() + offset, columns == 1 ? rows : step, true};
}

Shape leading(const Shape& shape) {
  return Shape(shape.extents().first(static_cast<size_t>(shape.dims() - 2)));
}

Shape product_shape(const Tensor& a, const Tensor& b) {
  WEFT_CHECK(a.shape().dims() >= 2 && b.shape().dims() >= 2 && a.shape()[-1] == b.shape()[-2] &&
                 a.dtype() == b.dtype(),
             "matmul of {} {} and {} {}", dtype_name(a.dtype()), a.shape().to_string(),
             dtype_name(b.dtype()), b.shape().to_string());
  Shape shape = broadcast_shape(leading(a.shape()), leading(b.shape()));
  shape.push_back(a.shape()[-2]);
  shape.push_back(b.shape()[-1]);
  return shape;
}

// Calls f.operator()<T, Out>().
template <typename F>
void dispatch_product(DType in, DType out, F&& f) {
  if (in == DType::kBF16 && out == DType::kF32) return f.template operator()<bfloat16, float>();
  WEFT_CHECK(in == out, "a product of {} in {}", dtype_name(in), dtype_name(out));
  if (in == DType::kBF16) return f.template operator()<bfloat16, bfloat16>();
  dispatch_floating(in, [&]<typename T>() { f.template operator()<T, T>(); });
}

// The leading dims of x as a tensor to walk: one element a matrix.
Tensor leading_view(const Tensor& x) {
  const size_t dims = static_cast<size_t>(x.shape().dims());
  return x.view(leading(x.shape()), x.strides().first(dims - 2), 0);
}

template <typename T, typename Out>
void multiply_all(Context& cx, const Tensor& a, const Tensor& b, const Tensor& out) {
  const int64_t m = a.shape()[-2], k = a.shape()[-1], n = b.shape()[-1];
  const Shape batch = leading(out.shape());
  const size_t dims = static_cast<size_t>(batch.dims());
  const Strides sa = broadcast_strides(leading_view(a), batch);
  const Strides sb = broadcast_strides(leading_view(b), batch);
  const StridedLoop<2> loop(batch, {std::span(sa).first(dims), std::span(sb).first(dims)});
  const auto one = [&](int64_t index, int64_t at_a, int64_t at_b) {
    cpu::gemm_in_blocks(cx.pool, cx.allocator, cx.block_count, m, n, k, matrix_of<T>(a, at_a),
                        matrix_of<T>(b, at_b), out.data<Out>() + index * m * n);
  };
  const auto rows = [&](int64_t begin, int64_t end) {
    loop.for_rows(begin, end, [&](int64_t start, const std::array<int64_t, 2>& at) {
      for (int64_t i = 0; i < loop.inner(); ++i) {
        one(start + i, at[0] + i * loop.inner_stride(0), at[1] + i * loop.inner_stride(1));
      }
    });
  };
  if (batch.elements() < 2 * cx.pool.size()) return rows(0, loop.rows());
  loop.run(cx.pool, 1, [&](int64_t count, const std::array<int64_t, 2>& at, int64_t start) {
    for (int64_t i = 0; i < count; ++i) {
      one(start + i, at[0] + i * loop.inner_stride(0), at[1] + i * loop.inner_stride(1));
    }
  });
}

// Leading dims flattened into rows, so that a shared right side is one product.
bool is_one_product(const Tensor& a, const Tensor& b) {
  return b.shape().dims() == 2 && a.shape().dims() > 2 && a.contiguous();
}

class Product final : public Kernel {
 public:
  std::string_view name() const override { return "product"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor &a = inputs[0], &b = inputs[1], &out = outputs[0];
    if (out.elements() == 0) return;
    dispatch_product(a.dtype(), out.dtype(), [&]<typename T, typename Out>() {
      if (is_one_product(a, b)) {
        const Tensor rows = as_rows(cx, a);
        const Shape shape{rows.dim(0), b.dim(1)};
        const std::array<int64_t, 2> strides{b.dim(1), 1};
        multiply_all<T, Out>(cx, as_matrices(cx, rows), as_matrices(cx, b),
                             out.view(shape, strides, 0));
      } else {
        multiply_all<T, Out>(cx, as_matrices(cx, a), as_matrices(cx, b), out);
      }
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).matmul(inputs[0], inputs[1], cx.block_count, outputs[0]);
  }
};

class Matmul final : public ForwardOp {
 public:
  std::string_view name() const override { return "matmul"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    return {matmul_values(cx, inputs[0], inputs[1])};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    wanted_[0] = inputs[0].requires_grad();
    wanted_[1] = inputs[1].requires_grad();
    return {inputs[0], inputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor &a = saved[0], &b = saved[1];
    std::vector<Tensor> grads(2);
    const Tensor& dy = output_grads[0];
    const DType dtype = gradient_dtype(dy.dtype());
    if (wanted_[0]) {
      grads[0] = reduce_to(cx, matmul_values(cx, dy, transposed_view(b), dtype), a.shape());
    }
    if (wanted_[1] && is_one_product(a, b)) {
      grads[1] = matmul_values(cx, transposed_view(as_rows(cx, a)), as_rows(cx, dy), dtype);
    } else if (wanted_[1]) {
      grads[1] = reduce_to(cx, matmul_values(cx, transposed_view(a), dy, dtype), b.shape());
    }
    return grads;
  }

 private:
  bool wanted_[2] = {false, false};
};

}  // namespace

Tensor matmul_values(Context& cx, const Tensor& a, const Tensor& b) {
  return matmul_values(cx, a, b, a.dtype());
}

Tensor matmul_values(Context& cx, const Tensor& a, const Tensor& b, DType dtype) {
  return run_kernel(cx, Product(), {a, b}, {product_shape(a, b), dtype});
}

void product_into(Context& cx, const Tensor& a, const Tensor& b, const Tensor& out,
                  const cpu::TileFunction& done) {
  if (out.elements() == 0) return;
  const Tensor left = as_matrices(cx, a), right = as_matrices(cx, b);
  dispatch_product(a.dtype(), out.dtype(), [&]<typename T, typename Out>() {
    cpu::gemm_in_blocks(cx.pool, cx.allocator, cx.block_count, a.dim(0), b.dim(1), a.dim(1),
                        matrix_of<T>(left, 0), matrix_of<T>(right, 0), out.data<Out>(), done);
  });
}

void tiles_of_product(Context& cx, const Tensor& a, const Tensor& b,
                      const cpu::TakeTile<bfloat16>& take) {
  const Tensor left = as_matrices(cx, a), right = as_matrices(cx, b);
  cpu::gemm_tiles<bfloat16>(cx.pool, cx.allocator, cx.block_count, a.dim(0), b.dim(1), a.dim(1),
                            matrix_of<bfloat16>(left, 0), matrix_of<bfloat16>(right, 0), take);
}

Tensor matmul(Context& cx, const Tensor& a, const Tensor& b) { return run<Matmul>(cx, {a, b}); }

}  // namespace weft::ops
