// Rows looked up by number: embedding tables and the rows of a batch.
#include <algorithm>
#include <limits>

#include "kernels/cpu/rows.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

// out[i] := row ids[i] - first of table, or zeros where it has none.
template <typename T>
void look_up(Context& cx, const Tensor& ids, const Tensor& table, int64_t first,
             const Tensor& out) {
  const int64_t rows = table.dim(0), width = table.dim(1), count = ids.elements();
  const int64_t* id = ids.data<int64_t>();
  const T* from = table.data<T>();
  T* to = out.data<T>();
  cx.pool.parallel_for(count, 1 + 16384 / (width + 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = id[i] - first;
      if (row >= 0 && row < rows) {
        std::copy_n(from + row * width, width, to + i * width);
      } else {
        std::fill_n(to + i * width, width, T{0});
      }
    }
  });
}

// table[ids[i] - first] += dy[i], in the order of i for each row: threads share out the rows.
template <typename T>
void scatter_add(Context& cx, const Tensor& ids, const Tensor& dy, int64_t first,
                 int64_t padding_id, const Tensor& table) {
  const int64_t width = table.dim(1), count = ids.elements();
  const int64_t* id = ids.data<int64_t>();
  const T* from = dy.data<T>();
  T* to = table.data<T>();
  cx.pool.parallel_for(table.dim(0), 64, [&](int64_t begin, int64_t end) {
    std::fill(to + begin * width, to + end * width, T{0});
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = id[i] - first;
      if (row < begin || row >= end || id[i] == padding_id) continue;
      cpu::rows<T>().add(from + i * width, to + row * width, width);
    }
  });
}

class Embedding final : public ForwardOp {
 public:
  Embedding(int64_t first_id, int64_t padding_id) : first_id_(first_id), padding_id_(padding_id) {}
  std::string_view name() const override { return "embedding"; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor ids = as_contiguous(cx.pool, inputs[0]), table = as_contiguous(cx.pool, inputs[1]);
    WEFT_CHECK(table.shape().dims() == 2, "table {}", table.shape().to_string());
    Shape shape = ids.shape();
    shape.push_back(table.dim(1));
    Tensor out = Tensor::empty(cx.allocator, shape, table.dtype());
    dispatch_floating(table.dtype(),
                      [&]<typename T>() { look_up<T>(cx, ids, table, first_id_, out); });
    return {out};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    table_ = inputs[1].spec();
    return {inputs[0]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor ids = as_contiguous(cx.pool, saved[0]),
                 dy = as_contiguous(cx.pool, output_grads[0]);
    Tensor grad = Tensor::empty(cx.allocator, table_.shape, table_.dtype);
    const int64_t padding_id = padding_id_ < 0 ? std::numeric_limits<int64_t>::min() : padding_id_;
    dispatch_floating(table_.dtype, [&]<typename T>() {
      scatter_add<T>(cx, ids, dy, first_id_, padding_id, grad);
    });
    return {Tensor(), grad};
  }

 private:
  const int64_t first_id_, padding_id_;
  TensorSpec table_;
};

// Inputs: x [B, T, H], index [B].
class GatherRows final : public ForwardOp {
 public:
  std::string_view name() const override { return "gather_rows"; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]), index = as_contiguous(cx.pool, inputs[1]);
    WEFT_CHECK(x.shape().dims() == 3 && index.shape() == Shape{x.dim(0)}, "rows of {} at {}",
               x.shape().to_string(), index.shape().to_string());
    const int64_t tokens = x.dim(1), width = x.dim(2);
    Tensor out = Tensor::zeros(cx.allocator, Shape{x.dim(0), width}, x.dtype());
    dispatch_floating(x.dtype(), [&]<typename T>() {
      for (int64_t row = 0; row < x.dim(0); ++row) {
        const int64_t token = index.data<int64_t>()[row];
        WEFT_CHECK(token >= -1 && token < tokens, "index {} of {} tokens", token, tokens);
        if (token < 0) continue;
        std::copy_n(x.data<T>() + (row * tokens + token) * width, width,
                    out.data<T>() + row * width);
      }
    });
    return {out};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    x_ = inputs[0].spec();
    return {inputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor index = as_contiguous(cx.pool, saved[0]),
                 dy = as_contiguous(cx.pool, output_grads[0]);
    const int64_t tokens = x_.shape[1], width = x_.shape[2];
    Tensor grad = Tensor::zeros(cx.allocator, x_.shape, x_.dtype);
    dispatch_floating(x_.dtype, [&]<typename T>() {
      for (int64_t row = 0; row < x_.shape[0]; ++row) {
        const int64_t token = index.data<int64_t>()[row];
        if (token < 0) continue;
        std::copy_n(dy.data<T>() + row * width, width,
                    grad.data<T>() + (row * tokens + token) * width);
      }
    });
    return {grad};
  }

 private:
  TensorSpec x_;
};

}  // namespace

Tensor embedding(Context& cx, const Tensor& ids, const Tensor& table, int64_t first_id,
                 int64_t padding_id) {
  return run<Embedding>(cx, {ids, table}, first_id, padding_id);
}

Tensor gather_rows(Context& cx, const Tensor& x, const Tensor& index) {
  return run<GatherRows>(cx, {x, index});
}

}  // namespace weft::ops
