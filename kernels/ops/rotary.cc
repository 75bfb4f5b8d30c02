#include "kernels/ops/rotary.h"

#include <cmath>

#include "kernels/cpu/vectors.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"

namespace weft::ops {
namespace {

// Inputs: x, cos, sin.
class Rotary final : public Op {
 public:
  Rotary(RotaryForm form, bool backwards) : form_(form), backwards_(backwards) {}
  std::string_view name() const override { return "rotary"; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Shape &x = inputs[0].shape(), &cos = inputs[1].shape();
    const bool batched = cos.dims() == 3;
    WEFT_CHECK(x.dims() >= 2 && (cos.dims() == 2 || (batched && x.dims() >= 3 && cos[0] == x[0])) &&
                   cos[-2] == x[-2] && 2 * cos[-1] <= x[-1] &&
                   inputs[1].spec() == inputs[2].spec() && inputs[1].dtype() == inputs[0].dtype(),
               "rotary of {} {} by {} {}", dtype_name(inputs[0].dtype()), x.to_string(),
               dtype_name(inputs[1].dtype()), cos.to_string());
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = inputs[0].strides().empty() || inputs[0].strides().back() == 1
                         ? inputs[0]
                         : clone(cx.pool, inputs[0]);
    const Tensor cos = as_contiguous(cx.pool, inputs[1]), sin = as_contiguous(cx.pool, inputs[2]);
    dispatch_floating(x.dtype(), [&]<typename T>() { turn_all<T>(cx, x, cos, sin, outputs[0]); });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).rotary(inputs[0], inputs[1], inputs[2], form_, backwards_, outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    return {inputs[1], inputs[2]};
  }
  // The opposite turn.
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    return {run<Rotary>(cx, {output_grads[0], saved[0], saved[1]}, form_, !backwards_)};
  }

 private:
  static constexpr int64_t kAhead = 1024;  // elements

  // One token of one head a step: the row-major walk over all dims but the last.
  template <typename T>
  void turn_all(Context& cx, const Tensor& x, const Tensor& cos, const Tensor& sin,
                const Tensor& out) const {
    const Shape& shape = x.shape();
    const size_t dims = static_cast<size_t>(shape.dims()) - 1;
    const int64_t width = shape[-1], pairs = cos.dim(-1), tokens = shape[-2];
    const int64_t per_sample = out.elements() / std::max<int64_t>(1, shape[0] * width);
    const bool batched = cos.shape().dims() == 3;
    const Shape rows(shape.extents().first(dims));
    const Strides to = row_major_strides(shape);
    const StridedLoop<2> loop(rows, {x.strides().first(dims), std::span(to).first(dims)});
    const int64_t grain =
        std::max<int64_t>(1, StridedLoop<2>::kGrain / std::max<int64_t>(1, width));
    if (width == 0) return;
    const cpu::VectorKernels<T>& kernels = cpu::vectors<T>();
    const T *source = x.data<T>(), *cosines = cos.data<T>(), *sines = sin.data<T>();
    T* const target = out.data<T>();
    // What is asked for while a token turns: the processor does not look past a page itself.
    const int64_t ahead = loop.inner_stride(0) * std::max<int64_t>(1, kAhead / width);
    loop.run(cx.pool, grain, [&](int64_t n, const std::array<int64_t, 2>& at, int64_t start) {
      const cpu::PastCaches past(out.bytes());
      int64_t first = 0;  // of the tokens of a head, or of what is here of them
      while (first < n) {
        const int64_t token = (start + first) % tokens, last = std::min(n, first + tokens - token);
        const int64_t sample = batched ? (start + first) / per_sample : 0;
        int64_t angle = (sample * tokens + token) * pairs;
        for (int64_t i = first; i < last; ++i, angle += pairs) {
          turn(kernels, source + at[0] + i * loop.inner_stride(0), cosines + angle, sines + angle,
               ahead, {target + at[1] + i * loop.inner_stride(1), past}, pairs, width);
        }
        first = last;
      }
    });
  }

  template <typename T>
  void turn(const cpu::VectorKernels<T>& kernels, const T* x, const T* cos, const T* sin,
            int64_t ahead, cpu::Target<T> y, int64_t pairs, int64_t width) const {
    const T direction = backwards_ ? T{-1} : T{1};
    if (form_ == RotaryForm::kHalves) {
      kernels.rotate(x, x + pairs, cos, sin, direction, ahead, y, {y.at + pairs, y.past}, pairs);
    } else {
      kernels.rotate_pairs(x, cos, sin, direction, y.at, pairs);
    }
    if (2 * pairs < width) std::copy(x + 2 * pairs, x + width, y.at + 2 * pairs);
  }

  const RotaryForm form_;
  const bool backwards_;
};

class RotaryAngles final : public Kernel {
 public:
  std::string_view name() const override { return "rotary_angles"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor positions = as_contiguous(cx.pool, inputs[0]);
    const Tensor frequencies = as_contiguous(cx.pool, inputs[1]);
    const int64_t pairs = frequencies.elements();
    dispatch_floating(outputs[0].dtype(), [&]<typename T>() {
      cx.pool.parallel_for(outputs[0].elements(), 1024, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const double angle = static_cast<double>(positions.data<int64_t>()[i / pairs]) *
                               frequencies.data<double>()[i % pairs];
          outputs[0].data<T>()[i] = static_cast<T>(std::cos(angle));
          outputs[1].data<T>()[i] = static_cast<T>(std::sin(angle));
        }
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).rotary_angles(inputs[0], inputs[1], outputs[0], outputs[1]);
  }
};

}  // namespace

Tensor rotary(Context& cx, const Tensor& x, const Tensor& cos, const Tensor& sin, RotaryForm form) {
  return run<Rotary>(cx, {x, cos, sin}, form, false);
}

Angles rotary_angles(Context& cx, const Tensor& positions, const Tensor& frequencies, DType dtype) {
  WEFT_CHECK(positions.dtype() == DType::kI64 && frequencies.dtype() == DType::kF64 &&
                 frequencies.shape().dims() == 1,
             "angles of {} by {} {}", dtype_name(positions.dtype()),
             dtype_name(frequencies.dtype()), frequencies.shape().to_string());
  Shape shape = positions.shape();
  shape.push_back(frequencies.dim(0));
  std::vector<Tensor> angles{Tensor::empty(cx.allocator, shape, dtype),
                             Tensor::empty(cx.allocator, shape, dtype)};
  RotaryAngles kernel;
  const std::array inputs = {positions, frequencies};
  run_kernel(cx, kernel, inputs, angles);
  return {angles[0], angles[1]};
}

}  // namespace weft::ops
