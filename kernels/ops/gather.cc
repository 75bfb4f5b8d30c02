#include <algorithm>
#include <optional>

#include "kernels/cpu/vectors.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/indexing.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/out_of_range.h"

namespace weft::ops {
namespace {

void check_range(Numbers numbers, const Tensor& index, int64_t extent) {
  const int64_t* values = index.data<int64_t>();
  for (int64_t i = 0; i < index.elements(); ++i) {
    if (values[i] < 0 || values[i] >= extent) throw_out_of_range({numbers, values[i], extent});
  }
}

void check_shapes(std::string_view op, const Tensor& x, int dim, const Tensor& index) {
  bool fits = index.dtype() == DType::kI64 && index.shape().dims() == x.shape().dims();
  for (int i = 0; fits && i < x.shape().dims(); ++i) fits = i == dim || index.dim(i) <= x.dim(i);
  WEFT_CHECK(fits, "{} along dim {} of {} at {} {}", op, dim, x.shape().to_string(),
             dtype_name(index.dtype()), index.shape().to_string());
}

// f(element of index, element of x that it names along dim), both contiguous; the lines along dim
// are spread over threads, each walked in order.
template <typename F>
void for_elements(Context& cx, const Tensor& x, int dim, const Tensor& index, F f) {
  Shape lines = index.shape();
  const int64_t length = lines[dim], step = split_at(index.shape(), dim).inner;
  const int64_t step_x = split_at(x.shape(), dim).inner, *places = index.data<int64_t>();
  lines[dim] = 1;
  const Strides in_index = row_major_strides(index.shape()), in_x = row_major_strides(x.shape());
  const size_t dims = static_cast<size_t>(lines.dims());
  const StridedLoop<2> loop(lines, {std::span(in_index).first(dims), std::span(in_x).first(dims)});
  loop.run(cx.pool, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, length)),
           [&](int64_t n, const std::array<int64_t, 2>& at, int64_t) {
             for (int64_t line = 0; line < n; ++line) {
               const int64_t first = at[0] + line * loop.inner_stride(0);
               const int64_t first_x = at[1] + line * loop.inner_stride(1);
               for (int64_t i = first; i < first + length * step; i += step) {
                 f(i, first_x + places[i] * step_x);
               }
             }
           });
}

// Inputs: x, index.
class Gather final : public Op {
 public:
  explicit Gather(int dim) : dim_(dim) {}
  std::string_view name() const override { return "gather"; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).take(inputs[0], dim_, inputs[1], Numbers::kGather, outputs[0]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    check_shapes(name(), inputs[0], dim_, inputs[1]);
    return {{inputs[1].shape(), inputs[0].dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]), index = as_contiguous(cx.pool, inputs[1]);
    check_range(Numbers::kGather, index, x.dim(dim_));
    dispatch_floating(x.dtype(), [&]<typename T>() {
      const T* from = x.data<T>();
      T* to = outputs[0].data<T>();
      for_elements(cx, x, dim_, index, [=](int64_t at, int64_t at_x) { to[at] = from[at_x]; });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    x_ = inputs[0].spec();
    return {inputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor zeros = Tensor::zeros(cx.allocator, x_.shape, x_.dtype);
    return {scatter_add(cx, zeros, dim_, saved[0], output_grads[0])};
  }

 private:
  const int dim_;
  TensorSpec x_;
};

// Inputs: x, index, source.
class ScatterAdd final : public Op {
 public:
  explicit ScatterAdd(int dim) : dim_(dim) {}
  std::string_view name() const override { return "scatter_add"; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    copy_into(cx.pool, inputs[0], outputs[0]);
    cuda::backend(cx).add_at(dim_, inputs[1], Numbers::kScatterAdd, inputs[2], outputs[0]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    check_shapes(name(), inputs[0], dim_, inputs[1]);
    WEFT_CHECK(inputs[1].shape() == inputs[2].shape() && inputs[0].dtype() == inputs[2].dtype(),
               "scatter_add of {} at {}", inputs[2].shape().to_string(),
               inputs[1].shape().to_string());
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor index = as_contiguous(cx.pool, inputs[1]);
    const Tensor source = as_contiguous(cx.pool, inputs[2]), &out = outputs[0];
    check_range(Numbers::kScatterAdd, index, out.dim(dim_));
    copy_into(cx.pool, inputs[0], out);
    dispatch_floating(out.dtype(), [&]<typename T>() {
      const T* from = source.data<T>();
      T* to = out.data<T>();
      for_elements(cx, out, dim_, index,
                   [=](int64_t at, int64_t at_out) { to[at_out] += from[at]; });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    wanted_ = inputs[2].requires_grad();
    return {inputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor& dy = output_grads[0];
    return {dy, Tensor(), wanted_ ? gather(cx, dy, dim_, saved[0]) : Tensor()};
  }

 private:
  const int dim_;
  bool wanted_ = false;
};

void check_slices(std::string_view op, const Tensor& x, const Tensor& index) {
  WEFT_CHECK(index.dtype() == DType::kI64 && index.shape().dims() == 1, "{} of {} at {} {}", op,
             x.shape().to_string(), dtype_name(index.dtype()), index.shape().to_string());
}

// Inputs: x, index [n].
class IndexSelect final : public Op {
 public:
  explicit IndexSelect(int dim) : dim_(dim) {}
  std::string_view name() const override { return "index_select"; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).take(inputs[0], dim_, inputs[1], Numbers::kIndexSelect, outputs[0]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    check_slices(name(), inputs[0], inputs[1]);
    Shape shape = inputs[0].shape();
    shape[dim_] = inputs[1].dim(0);
    return {{shape, inputs[0].dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]), index = as_contiguous(cx.pool, inputs[1]);
    check_range(Numbers::kIndexSelect, index, x.dim(dim_));
    const Split split = split_at(x.shape(), dim_);
    const int64_t count = index.elements(), *places = index.data<int64_t>();
    dispatch_floating(x.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(split.outer * count, 1 + 16384 / (split.inner + 1),
                           [&](int64_t begin, int64_t end) {
                             for (int64_t i = begin; i < end; ++i) {
                               const int64_t from = i / count * split.extent + places[i % count];
                               std::copy_n(x.data<T>() + from * split.inner, split.inner,
                                           outputs[0].data<T>() + i * split.inner);
                             }
                           });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    x_ = inputs[0].spec();
    return {inputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor zeros = Tensor::zeros(cx.allocator, x_.shape, x_.dtype);
    return {index_add(cx, zeros, dim_, saved[0], output_grads[0])};
  }

 private:
  const int dim_;
  TensorSpec x_;
};

// Inputs: x, index [n], source.
class IndexAdd final : public Op {
 public:
  explicit IndexAdd(int dim) : dim_(dim) {}
  std::string_view name() const override { return "index_add"; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    copy_into(cx.pool, inputs[0], outputs[0]);
    cuda::backend(cx).add_at(dim_, inputs[1], Numbers::kIndexAdd, inputs[2], outputs[0]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    check_slices(name(), inputs[0], inputs[1]);
    Shape shape = inputs[0].shape();
    shape[dim_] = inputs[1].dim(0);
    WEFT_CHECK(inputs[2].shape() == shape && inputs[2].dtype() == inputs[0].dtype(),
               "index_add of {} to {} at {}", inputs[2].shape().to_string(),
               inputs[0].shape().to_string(), inputs[1].shape().to_string());
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor index = as_contiguous(cx.pool, inputs[1]);
    const Tensor source = as_contiguous(cx.pool, inputs[2]), &out = outputs[0];
    check_range(Numbers::kIndexAdd, index, out.dim(dim_));
    copy_into(cx.pool, inputs[0], out);
    const Split split = split_at(out.shape(), dim_);
    const int64_t count = index.elements(), *places = index.data<int64_t>();
    // Threads share out the slices that are added to; each walks all of `index`, in order.
    const int64_t grain = std::max<int64_t>(1, 16384 / (1 + count + split.inner));
    dispatch_floating(out.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(split.extent, grain, [&](int64_t begin, int64_t end) {
        for (int64_t item = 0; item < split.outer * count; ++item) {
          const int64_t place = places[item % count];
          if (place < begin || place >= end) continue;
          T* to = out.data<T>() + (item / count * split.extent + place) * split.inner;
          const T* from = source.data<T>() + item * split.inner;
          cpu::vectors<T>().binary(cpu::Binary::kAdd, to, 1, from, 1, to, split.inner);
        }
      });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    wanted_ = inputs[2].requires_grad();
    return {inputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor& dy = output_grads[0];
    return {dy, Tensor(), wanted_ ? index_select(cx, dy, dim_, saved[0]) : Tensor()};
  }

 private:
  const int dim_;
  bool wanted_ = false;
};

// Inputs: index, source; output: zeros but for the places named.
class Scattered final : public Kernel {
 public:
  explicit Scattered(int dim) : dim_(dim) {}
  std::string_view name() const override { return "scattered"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor index = as_contiguous(cx.pool, inputs[0]);
    const Tensor source = as_contiguous(cx.pool, inputs[1]), &out = outputs[0];
    dispatch_floating(out.dtype(), [&]<typename T>() {
      const T* from = source.data<T>();
      T* to = out.data<T>();
      std::fill_n(to, out.elements(), T{0});
      for_elements(cx, out, dim_, index,
                   [=](int64_t at, int64_t at_out) { to[at_out] = from[at]; });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    outputs[0].fill(0);
    cuda::backend(cx).put(dim_, inputs[0], inputs[1], outputs[0]);
  }

 private:
  const int dim_;
};

class OneHot final : public Kernel {
 public:
  std::string_view name() const override { return "one_hot"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).one_hot(inputs[0], Numbers::kOneHot, outputs[0]);
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor ids = as_contiguous(cx.pool, inputs[0]);
    const int64_t classes = outputs[0].shape()[-1];
    check_range(Numbers::kOneHot, ids, classes);
    dispatch_all(outputs[0].dtype(), [&]<typename T>() {
      T* to = outputs[0].data<T>();
      std::fill_n(to, outputs[0].elements(), T{});
      for (int64_t i = 0; i < ids.elements(); ++i) {
        to[i * classes + ids.data<int64_t>()[i]] = static_cast<T>(1.0F);
      }
    });
  }
};

}  // namespace

Tensor gather(Context& cx, const Tensor& x, int dim, const Tensor& index) {
  return run<Gather>(cx, {x, index}, positive_dim(dim, x.shape()));
}

Tensor scatter_add(Context& cx, const Tensor& x, int dim, const Tensor& index,
                   const Tensor& source) {
  return run<ScatterAdd>(cx, {x, index, source}, positive_dim(dim, x.shape()));
}

Tensor scattered(Context& cx, const TensorSpec& like, int dim, const Tensor& index,
                 const Tensor& source) {
  return run_kernel(cx, Scattered(dim), {index, source}, {like.shape, source.dtype()});
}

Tensor index_select(Context& cx, const Tensor& x, int dim, const Tensor& index) {
  return run<IndexSelect>(cx, {x, index}, positive_dim(dim, x.shape()));
}

Tensor index_add(Context& cx, const Tensor& x, int dim, const Tensor& index, const Tensor& source) {
  return run<IndexAdd>(cx, {x, index, source}, positive_dim(dim, x.shape()));
}

Tensor one_hot(Context& cx, const Tensor& ids, int64_t classes, DType dtype) {
  WEFT_CHECK(ids.dtype() == DType::kI64, "ids of {}", dtype_name(ids.dtype()));
  Shape shape = ids.shape();
  shape.push_back(classes);
  return run_kernel(cx, OneHot(), {ids}, {shape, dtype});
}

}  // namespace weft::ops
