#include "kernels/attention/hard.h"

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/indexing.h"
#include "kernels/ops/norms.h"

namespace weft::attention {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

// The first place whose cumulative share exceeds `uniform`; a place of share 0 is never it.
template <typename T>
int64_t place_of(const T* scores, int64_t count, double uniform) {
  double largest = kNothing, total = 0;
  for (int64_t j = 0; j < count; ++j) {
    largest = std::max(largest, static_cast<double>(scores[j]));
  }
  if (largest == kNothing) return -1;
  for (int64_t j = 0; j < count; ++j) total += std::exp(static_cast<double>(scores[j]) - largest);
  double sum = 0;
  int64_t place = -1;
  for (int64_t j = 0; j < count; ++j) {
    const double share = std::exp(static_cast<double>(scores[j]) - largest);
    if (share == 0) continue;
    place = j;
    sum += share;
    if (sum > uniform * total) break;
  }
  return place;
}

// Input: scores.
class Draw final : public Kernel {
 public:
  Draw(RandomKey key, const ops::GlobalIndex& where) : key_(key), where_(where) {}
  std::string_view name() const override { return "draw"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).draw(inputs[0], key_, where_, outputs[0]);
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor scores = as_contiguous(cx.pool, inputs[0]);
    const Shape& shape = outputs[0].shape();
    const Strides global = row_major_strides(where_.global), local = row_major_strides(shape);
    int64_t first = 0;
    for (size_t dim = 0; dim < where_.offset.size(); ++dim) {
      first += where_.offset[dim] * global[dim];
    }
    const size_t dims = static_cast<size_t>(shape.dims());
    const StridedLoop<2> loop(shape, {std::span(global).first(dims), std::span(local).first(dims)});
    const int64_t keys = scores.dim(-1);
    int64_t* index = outputs[0].data<int64_t>();
    dispatch_floating(scores.dtype(), [&]<typename T>() {
      loop.run(cx.pool, 64, [&](int64_t n, const std::array<int64_t, 2>& at, int64_t start) {
        for (int64_t i = 0; i < n; ++i) {
          const int64_t place = first + at[0] + i * loop.inner_stride(0);
          const double uniform = uniform_at(key_, static_cast<uint64_t>(place));
          index[start + i] = place_of(scores.data<T>() + (start + i) * keys, keys, uniform);
        }
      });
    });
  }

 private:
  const RandomKey key_;
  const ops::GlobalIndex& where_;
};

// Input: index [B, Tq]; output: the row b Tk + index of each, -1 where there is none.
class RowsOfIndex final : public Kernel {
 public:
  explicit RowsOfIndex(int64_t keys) : keys_(keys) {}
  std::string_view name() const override { return "rows_of_index"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).rows_of_index(inputs[0], keys_, outputs[0]);
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor index = as_contiguous(cx.pool, inputs[0]);
    const int64_t queries = index.dim(1), *from = index.data<int64_t>();
    for (int64_t i = 0; i < index.elements(); ++i) {
      WEFT_CHECK(from[i] >= -1 && from[i] < keys_, "key {} of {}", from[i], keys_);
      outputs[0].data<int64_t>()[i] = from[i] < 0 ? -1 : i / queries * keys_ + from[i];
    }
  }

 private:
  const int64_t keys_;
};

// Inputs: weights, index.
class StraightThrough final : public Op {
 public:
  std::string_view name() const override { return "straight_through"; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).one_hot(inputs[1], ops::Numbers::kNone, outputs[0]);  // -1: none was drawn
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Tensor &weights = inputs[0], &index = inputs[1];
    WEFT_CHECK(
        weights.shape().dims() == 3 && index.shape() == (Shape{weights.dim(0), weights.dim(1)}),
        "draws {} from {}", index.shape().to_string(), weights.shape().to_string());
    return {weights.spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor index = as_contiguous(cx.pool, inputs[1]);
    const int64_t keys = outputs[0].dim(2);
    dispatch_floating(outputs[0].dtype(), [&]<typename T>() {
      T* to = outputs[0].data<T>();
      std::fill_n(to, outputs[0].elements(), T{0});
      for (int64_t i = 0; i < index.elements(); ++i) {
        const int64_t at = index.data<int64_t>()[i];
        WEFT_CHECK(at >= -1 && at < keys, "key {} of {}", at, keys);
        if (at >= 0) to[i * keys + at] = 1;
      }
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context&, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    return {output_grads[0], Tensor()};
  }
};

}  // namespace

Tensor draw(Context& cx, const Tensor& scores, RandomKey key, const ops::GlobalIndex& where) {
  const Shape shape(scores.shape().extents().first(static_cast<size_t>(scores.shape().dims() - 1)));
  WEFT_CHECK(
      where.global.dims() == shape.dims() && static_cast<int>(where.offset.size()) == shape.dims(),
      "draws {} as a part of {}", shape.to_string(), where.global.to_string());
  const Tensor wide =
      is_half(scores.dtype()) ? ops::cast(cx, scores.detach(), DType::kF32) : scores.detach();
  return run_kernel(cx, Draw(key, where), {wide}, {shape, DType::kI64});
}

Choice choose(Context& cx, const Tensor& scores, const Tensor& visible, RandomKey key,
              const ops::GlobalIndex& where) {
  const Tensor hidden = hide(cx, scores, visible);
  const Tensor index = draw(cx, hidden, key, where);
  const Tensor weights = ops::softmax(cx, hidden, -1);
  // A key of weight 0 has log-probability 0 from here on: it counts for nothing. NaN stays.
  const Tensor logs = ops::log_softmax(cx, hidden, -1);
  const Tensor zero = Tensor::zeros(cx.allocator, Shape{}, scores.dtype());
  const Tensor some = ops::compare(cx, weights.detach(), zero, ops::Comparison::kNotEqual);
  const Tensor kept = ops::where(cx, some, logs, zero);
  const Tensor one_hot = straight_through(cx, weights.detach(), index);
  return {index, weights, ops::sum(cx, ops::multiply(cx, one_hot, kept), -1),
          ops::negate(cx, ops::sum(cx, ops::multiply(cx, weights, kept), -1))};
}

Tensor chosen_values(Context& cx, const Tensor& values, const Tensor& index) {
  WEFT_CHECK(
      values.shape().dims() == 3 && index.shape().dims() == 2 && index.dim(0) == values.dim(0),
      "of values {} those at {}", values.shape().to_string(), index.shape().to_string());
  const Shape table{values.dim(0) * values.dim(1), values.dim(2)};
  const Tensor rows = run_kernel(cx, RowsOfIndex(values.dim(1)), {index}, index.spec());
  return ops::embedding(cx, rows, ops::reshape(cx, values, table));
}

Tensor straight_through(Context& cx, const Tensor& weights, const Tensor& index) {
  return ops::run<StraightThrough>(cx, {weights, index});
}

Tensor reinforce(Context& cx, const Tensor& log_probability, const Tensor& loss, double baseline) {
  const Tensor level = Tensor::full(cx.allocator, Shape{}, baseline, loss.dtype());
  const Tensor advantage = ops::subtract(cx, loss.detach(), level);
  return ops::sum_all(cx, ops::multiply(cx, advantage.detach(), log_probability));
}

}  // namespace weft::attention
