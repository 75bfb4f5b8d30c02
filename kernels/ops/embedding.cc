// Rows looked up by number: embedding tables and the rows of a batch.
#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/out_of_range.h"

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

// table[ids[i] - first] += dy[i], in the order of i for each row, into zeros or what is there:
// threads share out the rows. The sums of bf16 rows are fp32, and so is the table.
template <typename T>
void scatter_add(Context& cx, const Tensor& ids, const Tensor& dy, int64_t first,
                 int64_t padding_id, bool zeros_first, const Tensor& table) {
  const int64_t width = table.dim(1), count = ids.elements();
  const int64_t* id = ids.data<int64_t>();
  const T* from = dy.data<T>();
  Wide<T>* to = table.data<Wide<T>>();
  cx.pool.parallel_for(table.dim(0), 64, [&](int64_t begin, int64_t end) {
    if (zeros_first) std::fill(to + begin * width, to + end * width, Wide<T>{0});
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = id[i] - first;
      if (row < begin || row >= end || id[i] == padding_id) continue;
      if constexpr (std::is_same_v<T, bfloat16>) {
        cpu::convert().add_bf16_f32(from + i * width, to + row * width, width);
      } else {
        cpu::rows<T>().add(from + i * width, to + row * width, width);
      }
    }
  });
}

// The same of tokens in blocks, whose sums of each row are merged in the tree of
// Context::block_count; a block without the row adds nothing.
template <typename T>
class RowSums {
 public:
  RowSums(const Tensor& dy, int64_t blocks)
      : from_(dy.data<T>()),
        width_(dy.shape()[-1]),
        tokens_(dy.elements() / std::max<int64_t>(1, width_)),
        blocks_(blocks),
        levels_(static_cast<size_t>(std::bit_width(static_cast<uint64_t>(blocks)) + 1)) {
    for (auto& level : levels_) level.resize(static_cast<size_t>(width_));
  }

  // tokens: of one row of the table, ascending, at least one.
  void sum(std::span<const int64_t> tokens, Wide<T>* to) { node(tokens, 0, blocks_, 0, to); }

 private:
  void node(std::span<const int64_t> tokens, int64_t first, int64_t last, size_t level,
            Wide<T>* to) {
    if (last - first == 1) {
      std::fill_n(to, width_, Wide<T>{0});
      for (const int64_t token : tokens) add_row(token, to);
      return;
    }
    const int64_t middle = cpu::node_middle(first, last);
    const auto split =
        std::lower_bound(tokens.begin(), tokens.end(), cpu::block_start(tokens_, blocks_, middle));
    const auto left = tokens.first(static_cast<size_t>(split - tokens.begin()));
    const auto right = tokens.subspan(left.size());
    if (left.empty()) return node(right, middle, last, level, to);
    node(left, first, middle, level, to);
    if (right.empty()) return;
    Wide<T>* other = levels_[level].data();
    node(right, middle, last, level + 1, other);
    cpu::rows<Wide<T>>().add(other, to, width_);
  }
  void add_row(int64_t token, Wide<T>* to) const {
    if constexpr (std::is_same_v<T, bfloat16>) {
      cpu::convert().add_bf16_f32(from_ + token * width_, to, width_);
    } else {
      cpu::rows<T>().add(from_ + token * width_, to, width_);
    }
  }

  const T* from_;
  const int64_t width_, tokens_, blocks_;
  std::vector<std::vector<Wide<T>>> levels_;
};

template <typename T>
void scatter_blocks(Context& cx, const Tensor& ids, const Tensor& dy, int64_t first,
                    int64_t padding_id, const Tensor& table) {
  const int64_t rows = table.dim(0), width = table.dim(1), count = ids.elements();
  const int64_t* id = ids.data<int64_t>();
  // Tokens by their row, ascending.
  std::vector<int64_t> start(static_cast<size_t>(rows) + 1, 0), order(static_cast<size_t>(count));
  const auto row_of = [&](int64_t i) {
    const int64_t row = id[i] - first;
    return row < 0 || row >= rows || id[i] == padding_id ? int64_t{-1} : row;
  };
  for (int64_t i = 0; i < count; ++i) {
    if (row_of(i) >= 0) ++start[static_cast<size_t>(row_of(i)) + 1];
  }
  std::partial_sum(start.begin(), start.end(), start.begin());
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  for (int64_t i = 0; i < count; ++i) {
    if (row_of(i) >= 0) order[static_cast<size_t>(next[static_cast<size_t>(row_of(i))]++)] = i;
  }
  cx.pool.parallel_for(rows, 64, [&](int64_t begin, int64_t end) {
    RowSums<T> sums(dy, cx.block_count);
    for (int64_t row = begin; row < end; ++row) {
      const auto from = static_cast<size_t>(start[static_cast<size_t>(row)]);
      const auto to = static_cast<size_t>(start[static_cast<size_t>(row) + 1]);
      Wide<T>* at = table.data<Wide<T>>() + row * width;
      if (from == to) {
        std::fill_n(at, width, Wide<T>{0});
      } else {
        sums.sum(std::span(order).subspan(from, to - from), at);
      }
    }
  });
}

class EmbeddingBackward final : public Kernel {
 public:
  EmbeddingBackward(int64_t first_id, int64_t padding_id, bool zeros_first = true)
      : first_id_(first_id), padding_id_(padding_id), zeros_first_(zeros_first) {}
  std::string_view name() const override { return "embedding_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor ids = as_contiguous(cx.pool, inputs[0]), dy = as_contiguous(cx.pool, inputs[1]);
    const int64_t padding_id = padding_id_ < 0 ? std::numeric_limits<int64_t>::min() : padding_id_;
    dispatch_rows(dy.dtype(), [&]<typename T>() {
      if (cx.block_count > 1 && zeros_first_) {
        return scatter_blocks<T>(cx, ids, dy, first_id_, padding_id, outputs[0]);
      }
      scatter_add<T>(cx, ids, dy, first_id_, padding_id, zeros_first_, outputs[0]);
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).embedding_backward(inputs[0], inputs[1], first_id_, padding_id_,
                                         zeros_first_ ? cx.block_count : 0, outputs[0]);
  }

 private:
  const int64_t first_id_, padding_id_;
  const bool zeros_first_;  // else the rows are added to what the table holds; on the CPU
};

// Inputs: ids, table. All dims of the table but the last together count its rows.
class Embedding final : public Op {
 public:
  Embedding(int64_t first_id, int64_t padding_id) : first_id_(first_id), padding_id_(padding_id) {}
  std::string_view name() const override { return "embedding"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Tensor& table = inputs[1];
    WEFT_CHECK(table.shape().dims() >= 1, "table {}", table.shape().to_string());
    Shape shape = inputs[0].shape();
    shape.push_back(table.shape()[-1]);
    return {{shape, table.dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor ids = as_contiguous(cx.pool, inputs[0]), table = as_rows(cx, inputs[1]);
    dispatch_rows(table.dtype(),
                  [&]<typename T>() { look_up<T>(cx, ids, table, first_id_, outputs[0]); });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).embedding(inputs[0], as_rows(cx, inputs[1]), first_id_, outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    table_ = inputs[1].spec();
    return {inputs[0]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Shape rows{row_count(table_.shape), table_.shape[-1]};
    const Tensor gradient =
        run_kernel(cx, EmbeddingBackward(first_id_, padding_id_), {saved[0], output_grads[0]},
                   {rows, gradient_dtype(table_.dtype)});
    return {Tensor(), shaped(gradient, table_.shape)};
  }
  bool gives_rows() const override { return padding_id_ < 0; }
  RowGradient row_gradient(std::span<const Tensor> saved,
                           std::span<const Tensor> output_grads) override {
    return {1, saved[0], output_grads[0], first_id_};
  }
  bool add_to_leaves(Context& cx, std::span<const Tensor> saved,
                     std::span<const Tensor> output_grads, std::span<const Tensor> held) override {
    if (!held[1] || !held[1].contiguous() || !cx.device().is_cpu()) return false;
    if (cx.block_count > 1) return false;
    EmbeddingBackward kernel(first_id_, padding_id_, /*zeros_first=*/false);
    std::array outputs = {as_rows(cx, held[1])};
    run_kernel(cx, kernel, std::array{saved[0], output_grads[0]}, outputs);
    return true;
  }

 private:
  const int64_t first_id_, padding_id_;
  TensorSpec table_;
};

// Inputs: ids, values. Output: the table's elements [start, start + length), which are added to.
class AddRows final : public Kernel {
 public:
  AddRows(int64_t first_id, int64_t start) : first_id_(first_id), start_(start) {}
  std::string_view name() const override { return "add_rows"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor ids = as_contiguous(cx.pool, inputs[0]), rows = as_contiguous(cx.pool, inputs[1]);
    dispatch_rows(rows.dtype(), [&]<typename T>() { add<T>(cx, ids, rows, outputs[0]); });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const int64_t width = inputs[1].shape()[-1], first = start_ / width;
    const Tensor rows = Tensor::empty(cx.allocator, {last_row(outputs[0], width) - first, width},
                                      outputs[0].dtype());
    cuda::Backend& gpu = cuda::backend(cx);
    gpu.embedding_backward(inputs[0], inputs[1], first_id_ + first, -1, 0, rows);
    gpu.add(rows.view(outputs[0].shape(), std::array<int64_t, 1>{1}, start_ - first * width),
            outputs[0]);
  }

 private:
  // One behind the last row that some of the elements are of.
  int64_t last_row(const Tensor& elements, int64_t width) const {
    return (start_ + elements.elements() + width - 1) / width;
  }
  // Threads share out the rows.
  template <typename T>
  void add(Context& cx, const Tensor& ids, const Tensor& rows, const Tensor& to) const {
    const int64_t width = rows.shape()[-1], first = start_ / width, end = start_ + to.elements();
    const int64_t* id = ids.data<int64_t>();
    Wide<T>* sums = to.data<Wide<T>>();
    cx.pool.parallel_for(last_row(to, width) - first, 4096, [&](int64_t begin, int64_t stop) {
      for (int64_t i = 0; i < ids.elements(); ++i) {
        const int64_t row = id[i] - first_id_;
        if (row < first + begin || row >= first + stop) continue;
        const int64_t from = std::max(row * width, start_), till = std::min((row + 1) * width, end);
        const T* values = rows.data<T>() + i * width + (from - row * width);
        if constexpr (std::is_same_v<T, bfloat16>) {
          cpu::convert().add_bf16_f32(values, sums + from - start_, till - from);
        } else {
          cpu::rows<T>().add(values, sums + from - start_, till - from);
        }
      }
    });
  }

  const int64_t first_id_, start_;
};

// dx[b, index[b]] = dy[b], zeros elsewhere.
class GatherRowsBackward final : public Kernel {
 public:
  std::string_view name() const override { return "gather_rows_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor dy = as_contiguous(cx.pool, inputs[0]), index = as_contiguous(cx.pool, inputs[1]);
    const Tensor& dx = outputs[0];
    const int64_t tokens = dx.dim(1), width = dx.dim(2);
    dispatch_rows(dx.dtype(), [&]<typename T>() {
      std::fill_n(dx.data<T>(), dx.elements(), T{0});
      for (int64_t row = 0; row < dx.dim(0); ++row) {
        const int64_t token = index.data<int64_t>()[row];
        if (token < 0) continue;
        std::copy_n(dy.data<T>() + row * width, width,
                    dx.data<T>() + (row * tokens + token) * width);
      }
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).gather_rows_backward(inputs[0], inputs[1], outputs[0]);
  }
};

// Inputs: x [B, T, H], index [B].
class GatherRows final : public Op {
 public:
  std::string_view name() const override { return "gather_rows"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Tensor& x = inputs[0];
    WEFT_CHECK(x.shape().dims() == 3 && inputs[1].shape() == Shape{x.dim(0)}, "rows of {} at {}",
               x.shape().to_string(), inputs[1].shape().to_string());
    return {{Shape{x.dim(0), x.dim(2)}, x.dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]), index = as_contiguous(cx.pool, inputs[1]);
    const int64_t tokens = x.dim(1), width = x.dim(2);
    dispatch_rows(x.dtype(), [&]<typename T>() {
      T* to = outputs[0].data<T>();
      std::fill_n(to, outputs[0].elements(), T{0});
      for (int64_t row = 0; row < x.dim(0); ++row) {
        const int64_t token = index.data<int64_t>()[row];
        if (token < -1 || token >= tokens) {
          throw_out_of_range({Numbers::kGatherRows, token, tokens});
        }
        if (token < 0) continue;
        std::copy_n(x.data<T>() + (row * tokens + token) * width, width, to + row * width);
      }
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).gather_rows(inputs[0], inputs[1], outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    x_ = inputs[0].spec();
    return {inputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    return {run_kernel(cx, GatherRowsBackward(), {output_grads[0], saved[0]}, x_)};
  }

 private:
  TensorSpec x_;
};

}  // namespace

Tensor embedding_values(Context& cx, const Tensor& ids, const Tensor& table, int64_t first_id) {
  Embedding op(first_id, -1);
  return op.forward(cx, std::array{ids, table})[0];
}

Tensor embedding_gradient(Context& cx, const Tensor& ids, const Tensor& dy, int64_t first_id,
                          const TensorSpec& gradient, int64_t padding_id) {
  return run_kernel(cx, EmbeddingBackward(first_id, padding_id), {ids, dy}, gradient);
}

void add_rows(Context& cx, const RowGradient& rows, int64_t start, Tensor elements) {
  if (elements.elements() == 0 || rows.values.elements() == 0) return;
  AddRows kernel(rows.first_id, start);
  run_kernel(cx, kernel, std::array{rows.ids, rows.values}, std::span(&elements, 1));
}

Tensor embedding(Context& cx, const Tensor& ids, const Tensor& table, int64_t first_id,
                 int64_t padding_id) {
  return run<Embedding>(cx, {ids, table}, first_id, padding_id);
}

Tensor gather_rows(Context& cx, const Tensor& x, const Tensor& index) {
  return run<GatherRows>(cx, {x, index});
}

}  // namespace weft::ops
