#include <algorithm>
#include <numeric>

#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/indexing.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

// Whether p comes before q; NaN counts as the largest.
template <typename T>
bool before(bool descending, T p, T q) {
  if (descending) std::swap(p, q);
  if (p != p) return false;
  return q != q || p < q;
}

// The first k of each row (of the last dim) in order. Inputs: x; outputs: values, int64 indices.
class SortRows final : public Kernel {
 public:
  SortRows(int64_t k, bool descending) : k_(k), descending_(descending) {}
  std::string_view name() const override { return "sort"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).sort(inputs[0], descending_, outputs[0], outputs[1]);
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_rows(cx, inputs[0]);
    const int64_t width = x.dim(1);
    dispatch_floating(x.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(x.dim(0), 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end) {
        std::vector<int64_t> order(static_cast<size_t>(width));
        for (int64_t row = begin; row < end; ++row) {
          sort_row(x.data<T>() + row * width, order, outputs[0].data<T>() + row * k_,
                   outputs[1].data<int64_t>() + row * k_);
        }
      });
    });
  }

 private:
  template <typename T>
  void sort_row(const T* x, std::vector<int64_t>& order, T* values, int64_t* indices) const {
    std::iota(order.begin(), order.end(), 0);
    const auto place = [&](int64_t i) { return x[i]; };
    if (k_ == static_cast<int64_t>(order.size())) {
      std::stable_sort(order.begin(), order.end(), [&](int64_t p, int64_t q) {
        return before(descending_, place(p), place(q));
      });
    } else {  // ties by place, which is the stable order
      std::partial_sort(order.begin(), order.begin() + k_, order.end(), [&](int64_t p, int64_t q) {
        if (before(descending_, place(p), place(q))) return true;
        return !before(descending_, place(q), place(p)) && p < q;
      });
    }
    for (int64_t i = 0; i < k_; ++i) {
      indices[i] = order[static_cast<size_t>(i)];
      values[i] = x[indices[i]];
    }
  }

  const int64_t k_;
  const bool descending_;
};

// Over the last dim. Outputs: values and indices.
class SortOp final : public ForwardOp {
 public:
  SortOp(int64_t k, bool descending) : k_(k), descending_(descending) {}
  std::string_view name() const override { return "sort"; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    Shape shape = inputs[0].shape();
    WEFT_CHECK(k_ >= 0 && k_ <= shape[-1], "the first {} of {}", k_, shape.to_string());
    shape[-1] = k_;
    std::vector<Tensor> outputs{Tensor::empty(cx.allocator, shape, inputs[0].dtype()),
                                Tensor::empty(cx.allocator, shape, DType::kI64)};
    SortRows kernel(k_, descending_);
    run_kernel(cx, kernel, inputs, outputs);
    return outputs;
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    x_ = inputs[0].spec();
    return {outputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    return {scattered(cx, x_, x_.shape.dims() - 1, saved[0], output_grads[0])};
  }

 private:
  const int64_t k_;
  const bool descending_;
  TensorSpec x_;
};

Sorted first_along(Context& cx, const Tensor& x, int64_t k, int dim, bool descending) {
  const int at = positive_dim(dim, x.shape()), last = x.shape().dims() - 1;
  std::vector<int> order(static_cast<size_t>(last + 1));
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[static_cast<size_t>(at)], order[static_cast<size_t>(last)]);
  const Tensor rows = at == last ? x : permute(cx, x, order);
  const std::vector<Tensor> found = apply(cx, std::make_unique<SortOp>(k, descending), {rows});
  if (at == last) return {found[0], found[1]};
  return {contiguous(cx, permute(cx, found[0], order)),
          contiguous(cx, permute(cx, found[1], order))};
}

}  // namespace

Sorted sort(Context& cx, const Tensor& x, int dim, bool descending) {
  return first_along(cx, x, x.dim(dim), dim, descending);
}

Tensor argsort(Context& cx, const Tensor& x, int dim, bool descending) {
  return sort(cx, x.detach(), dim, descending).indices;
}

Sorted top_k(Context& cx, const Tensor& x, int64_t k, int dim, bool largest) {
  return first_along(cx, x, k, dim, largest);
}

}  // namespace weft::ops
