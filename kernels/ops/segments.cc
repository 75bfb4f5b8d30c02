#include "kernels/ops/segments.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/cpu/vectors.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/indexing.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/out_of_range.h"
#include "proto/base/status.h"

namespace weft::ops {
namespace {

// The elements of each segment, in their order: those of segment s are
// order[start[s]] .. order[start[s + 1]).
struct Members {
  std::vector<int64_t> start, order;

  Members(const Tensor& segment, int64_t count)
      : start(static_cast<size_t>(count) + 1), order(static_cast<size_t>(segment.elements())) {
    const int64_t* ids = segment.data<int64_t>();
    for (int64_t e = 0; e < segment.elements(); ++e) {
      if (ids[e] < 0 || ids[e] >= count) {
        throw_out_of_range({Numbers::kSegment, ids[e], count});
      }
      ++start[static_cast<size_t>(ids[e]) + 1];
    }
    std::partial_sum(start.begin(), start.end(), start.begin());
    std::vector<int64_t> next(start.begin(), start.end() - 1);
    for (int64_t e = 0; e < segment.elements(); ++e) {
      order[static_cast<size_t>(next[static_cast<size_t>(ids[e])]++)] = e;
    }
  }
};

// f(s, the elements of s) for every segment, spread over threads.
template <typename F>
void for_segments(Context& cx, const Members& members, int64_t width, F f) {
  const int64_t count = static_cast<int64_t>(members.start.size()) - 1;
  const int64_t elements = static_cast<int64_t>(members.order.size());
  const int64_t work = width * (1 + elements / std::max<int64_t>(1, count));
  cx.pool.parallel_for(count, 1 + 16384 / (work + 1), [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const int64_t from = members.start[static_cast<size_t>(s)];
      const int64_t to = members.start[static_cast<size_t>(s) + 1];
      f(s, std::span(members.order)
               .subspan(static_cast<size_t>(from), static_cast<size_t>(to - from)));
    }
  });
}

void check_segments(std::string_view op, const Tensor& x, const Tensor& segment) {
  WEFT_CHECK(
      x.shape().dims() >= 1 && segment.dtype() == DType::kI64 && segment.shape() == Shape{x.dim(0)},
      "{} of {} by {} {}", op, x.shape().to_string(), dtype_name(segment.dtype()),
      segment.shape().to_string());
}

int64_t width_of(const Shape& shape) { return split_at(shape, 0).inner; }

// Inputs: x, segment.
class SegmentSum final : public Op {
 public:
  explicit SegmentSum(int64_t count) : count_(count) {}
  std::string_view name() const override { return "segment_sum"; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).segment_sum(inputs[0], inputs[1], outputs[0]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    check_segments(name(), inputs[0], inputs[1]);
    Shape shape = inputs[0].shape();
    shape[0] = count_;
    return {{shape, inputs[0].dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    const Members members(as_contiguous(cx.pool, inputs[1]), count_);
    const int64_t width = width_of(x.shape());
    dispatch_floating(x.dtype(), [&]<typename T>() {
      for_segments(cx, members, width, [&](int64_t s, std::span<const int64_t> elements) {
        T* to = outputs[0].data<T>() + s * width;
        std::fill_n(to, width, T{0});
        for (const int64_t e : elements) {
          cpu::vectors<T>().binary(cpu::Binary::kAdd, to, 1, x.data<T>() + e * width, 1, to, width);
        }
      });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    return {inputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    return {index_select(cx, output_grads[0], 0, saved[0])};
  }

 private:
  const int64_t count_;
};

// Inputs: the gradient of the maxima and the elements that they are of; output: that of x.
class SegmentMaxBackward final : public Kernel {
 public:
  std::string_view name() const override { return "segment_max_backward"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).segment_max_backward(inputs[0], inputs[1], outputs[0]);
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor dy = as_contiguous(cx.pool, inputs[0]);
    const int64_t width = width_of(dy.shape()), *place = inputs[1].data<int64_t>();
    dispatch_floating(dy.dtype(), [&]<typename T>() {
      T* to = outputs[0].data<T>();
      std::fill_n(to, outputs[0].elements(), T{0});
      cx.pool.parallel_for(dy.elements(), 16384, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          if (place[i] >= 0) to[place[i] * width + i % width] = dy.data<T>()[i];
        }
      });
    });
  }
};

// Outputs: the maximum of each segment, and the element that it is of (-1: none).
class SegmentMax final : public Op {
 public:
  explicit SegmentMax(int64_t count) : count_(count) {}
  std::string_view name() const override { return "segment_max"; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).segment_max(inputs[0], inputs[1], outputs[0], outputs[1]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    check_segments(name(), inputs[0], inputs[1]);
    Shape shape = inputs[0].shape();
    shape[0] = count_;
    return {{shape, inputs[0].dtype()}, {shape, DType::kI64}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    const Members members(as_contiguous(cx.pool, inputs[1]), count_);
    const int64_t width = width_of(x.shape());
    dispatch_floating(x.dtype(), [&]<typename T>() {
      for_segments(cx, members, width, [&](int64_t s, std::span<const int64_t> elements) {
        T* value = outputs[0].data<T>() + s * width;
        int64_t* place = outputs[1].data<int64_t>() + s * width;
        std::fill_n(value, width, T{0});
        std::fill_n(place, width, -1);
        for (const int64_t e : elements) {
          const T* from = x.data<T>() + e * width;
          for (int64_t i = 0; i < width; ++i) {
            const bool wins = place[i] < 0 || from[i] > value[i] || from[i] != from[i];
            value[i] = wins ? from[i] : value[i];
            place[i] = wins ? e : place[i];
          }
        }
      });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    x_ = inputs[0].spec();
    return {outputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    return {run_kernel(cx, SegmentMaxBackward(), {output_grads[0], saved[0]}, x_)};
  }

 private:
  const int64_t count_;
  TensorSpec x_;
};

// Inputs: x, segment.
class SegmentSoftmax final : public Op {
 public:
  explicit SegmentSoftmax(int64_t count) : count_(count) {}
  std::string_view name() const override { return "segment_softmax"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).segment_softmax(inputs[0], inputs[1], count_, outputs[0]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    check_segments(name(), inputs[0], inputs[1]);
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    const Members members(as_contiguous(cx.pool, inputs[1]), count_);
    const int64_t width = width_of(x.shape());
    dispatch_floating(x.dtype(), [&]<typename T>() {
      for_segments(cx, members, width, [&](int64_t, std::span<const int64_t> elements) {
        softmax_of(x.data<T>(), outputs[0].data<T>(), width, elements);
      });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    return {outputs[0].detach(), inputs[1]};
  }
  // dx = y (dy - sum of y dy over the segment)
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor &y = saved[0], &segment = saved[1], &dy = output_grads[0];
    const Tensor sums = segment_sum(cx, multiply(cx, y, dy), segment, count_);
    return {multiply(cx, y, subtract(cx, dy, index_select(cx, sums, 0, segment)))};
  }

 private:
  template <typename T>
  static void softmax_of(const T* x, T* y, int64_t width, std::span<const int64_t> elements) {
    if (elements.empty()) return;
    const cpu::VectorKernels<T>& row = cpu::vectors<T>();
    std::vector<T> largest(x + elements[0] * width, x + (elements[0] + 1) * width);
    std::vector<T> total(static_cast<size_t>(width));
    for (const int64_t e : elements) {
      row.binary(cpu::Binary::kMaximum, largest.data(), 1, x + e * width, 1, largest.data(), width);
    }
    std::replace(largest.begin(), largest.end(), -std::numeric_limits<T>::infinity(), T{0});
    for (const int64_t e : elements) {
      T* to = y + e * width;
      row.binary(cpu::Binary::kSubtract, x + e * width, 1, largest.data(), 1, to, width);
      row.unary(cpu::Unary::kExp, T{}, T{}, to, to, width);
      row.binary(cpu::Binary::kAdd, total.data(), 1, to, 1, total.data(), width);
    }
    std::replace(total.begin(), total.end(), T{0}, T{1});  // nothing but -infinity: zeros
    for (const int64_t e : elements) {
      row.binary(cpu::Binary::kDivide, y + e * width, 1, total.data(), 1, y + e * width, width);
    }
  }

  const int64_t count_;
};

class SegmentsOfOffsets final : public Kernel {
 public:
  std::string_view name() const override { return "segments_of_offsets"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).segments_of_offsets(inputs[0], outputs[0]);
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor offsets = as_contiguous(cx.pool, inputs[0]);
    const int64_t *from = offsets.data<int64_t>(), count = offsets.elements() - 1;
    int64_t* to = outputs[0].data<int64_t>();
    for (int64_t s = 0; s < count; ++s) std::fill(to + from[s], to + from[s + 1], s);
  }
};

}  // namespace

Tensor segment_sum(Context& cx, const Tensor& x, const Tensor& segment, int64_t count) {
  return run<SegmentSum>(cx, {x, segment}, count);
}

Tensor segment_mean(Context& cx, const Tensor& x, const Tensor& segment, int64_t count) {
  const Tensor ones = Tensor::full(cx.allocator, segment.shape(), 1, x.dtype());
  const Tensor members = clamp(cx, segment_sum(cx, ones, segment, count), 1,
                               std::max<double>(1, static_cast<double>(segment.elements())));
  Shape column = members.shape();
  for (int dim = 1; dim < x.shape().dims(); ++dim) column.push_back(1);
  return divide(cx, segment_sum(cx, x, segment, count), reshape(cx, members, column));
}

Tensor segment_max(Context& cx, const Tensor& x, const Tensor& segment, int64_t count) {
  return apply(cx, std::make_unique<SegmentMax>(count), {x, segment})[0];
}

Tensor segment_softmax(Context& cx, const Tensor& x, const Tensor& segment, int64_t count) {
  return run<SegmentSoftmax>(cx, {x, segment}, count);
}

Tensor segments_of_offsets(Context& cx, const Tensor& offsets) {
  WEFT_CHECK(offsets.dtype() == DType::kI64 && offsets.shape().dims() == 1 && offsets.dim(0) > 0,
             "offsets {} {}", dtype_name(offsets.dtype()), offsets.shape().to_string());
  const std::vector<int64_t> values = offsets.to_vector<int64_t>();
  for (size_t i = 0; i < values.size(); ++i) {
    if (i == 0 ? values[i] != 0 : values[i] < values[i - 1]) {
      throw StatusError(Status::invalid("offsets", std::to_string(values[i]),
                                        "must begin with 0 and not decrease"));
    }
  }
  return run_kernel(cx, SegmentsOfOffsets(), {offsets}, {Shape{values.back()}, DType::kI64});
}

}  // namespace weft::ops
