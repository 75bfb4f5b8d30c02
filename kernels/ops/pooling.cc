// Pooling over planes of two dims (one dim: a height of 1). What a place of the result is made of
// is a range of each dim.
#include <algorithm>

#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/convolution.h"

namespace weft::ops {
namespace {

struct Range {
  int64_t begin, end;  // places of the input
  int64_t counted;     // places of the window, those of the padding too where they count
};
// The ranges of one dim, a place of the result each.
using Ranges = std::vector<Range>;

int64_t number_of(const std::vector<int64_t>& numbers, int dim, int64_t absent) {
  return numbers.empty() ? absent : numbers[static_cast<size_t>(dim)];
}

void check_planes(const Tensor& x, size_t numbers) {
  const int dims = x.shape().dims();
  WEFT_CHECK((dims == 3 || dims == 4) && static_cast<int>(numbers) == dims - 2,
             "pooling of {} by {} numbers", x.shape().to_string(), numbers);
}

// As torch counts: windows begin at the padding, and padding behind the window's own does not
// count.
std::vector<Ranges> windows_of(const Tensor& x, const Window& window, bool count_padding) {
  check_planes(x, window.kernel.size());
  std::vector<Ranges> ranges;
  for (int dim = 0; dim + 2 < x.shape().dims(); ++dim) {
    const int64_t extent = x.dim(2 + dim), kernel = window.kernel[static_cast<size_t>(dim)];
    const int64_t stride = number_of(window.stride, dim, kernel);
    const int64_t padding = number_of(window.padding, dim, 0);
    const int64_t room = extent + 2 * padding - kernel;
    WEFT_CHECK(kernel > 0 && stride > 0 && padding >= 0 && 2 * padding <= kernel && room >= 0 &&
                   extent > 0,
               "a window of {} places, stride {} and padding {} over {}", kernel, stride, padding,
               extent);
    Ranges along;
    for (int64_t i = 0; i <= room / stride; ++i) {
      const int64_t first = i * stride - padding, last = first + kernel;
      const int64_t begin = std::max<int64_t>(first, 0), end = std::min(last, extent);
      along.push_back({begin, end, count_padding ? kernel : end - begin});
    }
    ranges.push_back(std::move(along));
  }
  return ranges;
}

std::vector<Ranges> adaptive_windows(const Tensor& x, const std::vector<int64_t>& extents) {
  check_planes(x, extents.size());
  std::vector<Ranges> ranges;
  for (int dim = 0; dim + 2 < x.shape().dims(); ++dim) {
    const int64_t from = x.dim(2 + dim), to = extents[static_cast<size_t>(dim)];
    WEFT_CHECK(from > 0 && to > 0, "pooling of an extent {} to {}", from, to);
    Ranges along;
    for (int64_t i = 0; i < to; ++i) {
      const int64_t begin = i * from / to, end = ((i + 1) * from + to - 1) / to;
      along.push_back({begin, end, end - begin});
    }
    ranges.push_back(std::move(along));
  }
  return ranges;
}

// Planes [N C] of `in` places in rows of `width`, and the windows over them.
class Planes {
 public:
  // sizes: the same windows as a GPU's kernels take them.
  Planes(const Shape& shape, std::vector<Ranges> ranges, const cuda::PoolSizes& sizes)
      : count_(shape[0] * shape[1]), width_(shape[-1]), ranges_(std::move(ranges)), sizes_(sizes) {
    places_ = split_at(shape, 1).inner;
    if (ranges_.size() == 1) ranges_.insert(ranges_.begin(), Ranges{{0, 1, 1}});
    pooled_ = static_cast<int64_t>(ranges_[0].size() * ranges_[1].size());
    shape_ = Shape{shape[0], shape[1]};
    if (shape.dims() == 4) shape_.push_back(static_cast<int64_t>(ranges_[0].size()));
    shape_.push_back(static_cast<int64_t>(ranges_[1].size()));
  }
  const Shape& pooled_shape() const { return shape_; }
  const cuda::PoolSizes& sizes() const { return sizes_; }
  int64_t width() const { return width_; }

  // f(first place of the plane, first of its results), the planes shared by threads.
  template <typename F>
  void for_planes(Context& cx, F f) const {
    const int64_t grain = 1 + 16384 / (1 + places_);
    cx.pool.parallel_for(count_, grain, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) f(plane * places_, plane * pooled_);
    });
  }
  // f(up, across) for each result of a plane, in order.
  template <typename F>
  void for_windows(F f) const {
    for (const Range& up : ranges_[0]) {
      for (const Range& across : ranges_[1]) f(up, across);
    }
  }

 private:
  int64_t count_, width_, places_ = 0, pooled_ = 0;
  std::vector<Ranges> ranges_;
  cuda::PoolSizes sizes_;
  Shape shape_;
};

// The same as numbers; `ranges` are windows_of().
cuda::PoolSizes sizes_of(const Tensor& x, const Window& window, bool count_padding,
                         const std::vector<Ranges>& ranges) {
  cuda::PoolSizes sizes{.in = {1, 1},
                        .out = {1, 1},
                        .kernel = {1, 1},
                        .stride = {1, 1},
                        .count_padding = count_padding};
  const int dims = x.shape().dims() - 2;
  for (int dim = 0; dim < dims; ++dim) {
    const size_t to = static_cast<size_t>(2 - dims + dim);
    sizes.in[to] = x.dim(2 + dim);
    sizes.out[to] = std::ssize(ranges[static_cast<size_t>(dim)]);
    sizes.kernel[to] = window.kernel[static_cast<size_t>(dim)];
    sizes.stride[to] = number_of(window.stride, dim, sizes.kernel[to]);
    sizes.padding[to] = number_of(window.padding, dim, 0);
  }
  return sizes;
}

cuda::PoolSizes adaptive_sizes(const Tensor& x, const std::vector<int64_t>& extents) {
  cuda::PoolSizes sizes{.in = {1, 1}, .out = {1, 1}, .adaptive = true};
  for (size_t dim = 0; dim < extents.size(); ++dim) {
    const size_t to = 2 - extents.size() + dim;
    sizes.in[to] = x.dim(2 + static_cast<int>(dim));
    sizes.out[to] = extents[dim];
  }
  return sizes;
}

Planes planes_of(const Tensor& x, const Window& window, bool count_padding) {
  std::vector<Ranges> ranges = windows_of(x, window, count_padding);
  const cuda::PoolSizes sizes = sizes_of(x, window, count_padding, ranges);
  return Planes(x.shape(), std::move(ranges), sizes);
}

// Input: the results' gradient; output: the planes'.
class AverageBackward final : public Kernel {
 public:
  explicit AverageBackward(const Planes& planes) : planes_(planes) {}
  std::string_view name() const override { return "average_pool_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor dy = as_contiguous(cx.pool, inputs[0]);
    dispatch_floating(dy.dtype(), [&]<typename T>() {
      T* dx = outputs[0].data<T>();
      std::fill_n(dx, outputs[0].elements(), T{0});
      planes_.for_planes(cx, [&](int64_t plane, int64_t first) {
        const T* from = dy.data<T>() + first;
        planes_.for_windows([&](const Range& up, const Range& across) {
          const T share = *from++ / static_cast<T>(up.counted * across.counted);
          for (int64_t row = up.begin; row < up.end; ++row) {
            T* to = dx + plane + row * planes_.width();
            for (int64_t i = across.begin; i < across.end; ++i) to[i] += share;
          }
        });
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).average_pool_backward(planes_.sizes(), inputs[0], outputs[0]);
  }

 private:
  const Planes& planes_;
};

class Average final : public Op {
 public:
  explicit Average(Planes planes) : planes_(std::move(planes)) {}
  std::string_view name() const override { return "average_pool"; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    return {{planes_.pooled_shape(), inputs[0].dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    dispatch_floating(x.dtype(), [&]<typename T>() {
      planes_.for_planes(cx, [&](int64_t plane, int64_t first) {
        T* to = outputs[0].data<T>() + first;
        planes_.for_windows([&](const Range& up, const Range& across) {
          T sum = 0;
          for (int64_t row = up.begin; row < up.end; ++row) {
            const T* from = x.data<T>() + plane + row * planes_.width();
            for (int64_t i = across.begin; i < across.end; ++i) sum += from[i];
          }
          *to++ = sum / static_cast<T>(up.counted * across.counted);
        });
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).average_pool(planes_.sizes(), inputs[0], outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    x_ = inputs[0].spec();
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    const TensorSpec spec{x_.shape, output_grads[0].dtype()};
    return {run_kernel(cx, AverageBackward(planes_), {output_grads[0]}, spec)};
  }

 private:
  const Planes planes_;
  TensorSpec x_;
};

// Inputs: the results' gradient, and where in its plane each result came from.
class MaxBackward final : public Kernel {
 public:
  explicit MaxBackward(const Planes& planes) : planes_(planes) {}
  std::string_view name() const override { return "max_pool_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor dy = as_contiguous(cx.pool, inputs[0]);
    dispatch_floating(dy.dtype(), [&]<typename T>() {
      T* dx = outputs[0].data<T>();
      std::fill_n(dx, outputs[0].elements(), T{0});
      planes_.for_planes(cx, [&](int64_t plane, int64_t first) {
        const T* from = dy.data<T>() + first;
        const int64_t* place = inputs[1].data<int64_t>() + first;
        planes_.for_windows([&](const Range&, const Range&) { dx[plane + *place++] += *from++; });
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).max_pool_backward(planes_.sizes(), inputs[0], inputs[1], outputs[0]);
  }

 private:
  const Planes& planes_;
};

// Outputs: the maxima, and their places (int64).
class Max final : public Op {
 public:
  explicit Max(Planes planes) : planes_(std::move(planes)) {}
  std::string_view name() const override { return "max_pool"; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    return {{planes_.pooled_shape(), inputs[0].dtype()}, {planes_.pooled_shape(), DType::kI64}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    dispatch_floating(x.dtype(), [&]<typename T>() {
      planes_.for_planes(cx, [&](int64_t plane, int64_t first) {
        const T* from = x.data<T>() + plane;
        T* value = outputs[0].data<T>() + first;
        int64_t* place = outputs[1].data<int64_t>() + first;
        planes_.for_windows([&](const Range& up, const Range& across) {
          int64_t best = up.begin * planes_.width() + across.begin;
          for (int64_t row = up.begin; row < up.end; ++row) {
            for (int64_t i = across.begin; i < across.end; ++i) {
              const int64_t at = row * planes_.width() + i;
              const bool wins = from[at] > from[best] || from[at] != from[at];
              if (wins && from[best] == from[best]) best = at;
            }
          }
          *value++ = from[best];
          *place++ = best;
        });
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).max_pool(planes_.sizes(), inputs[0], outputs[0], outputs[1]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    x_ = inputs[0].spec();
    return {outputs[1]};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const TensorSpec spec{x_.shape, output_grads[0].dtype()};
    return {run_kernel(cx, MaxBackward(planes_), {output_grads[0], saved[0]}, spec)};
  }

 private:
  const Planes planes_;
  TensorSpec x_;
};

}  // namespace

Tensor max_pool(Context& cx, const Tensor& x, const Window& window) {
  return apply(cx, std::make_unique<Max>(planes_of(x, window, false)), {x})[0];
}

Tensor average_pool(Context& cx, const Tensor& x, const Window& window, bool count_padding) {
  return run<Average>(cx, {x}, planes_of(x, window, count_padding));
}

Tensor adaptive_average_pool(Context& cx, const Tensor& x, const std::vector<int64_t>& extents) {
  std::vector<Ranges> ranges = adaptive_windows(x, extents);
  const cuda::PoolSizes sizes = adaptive_sizes(x, extents);
  return run<Average>(cx, {x}, Planes(x.shape(), std::move(ranges), sizes));
}

}  // namespace weft::ops
