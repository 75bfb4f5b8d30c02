// Element by element, and sums over a dim.
#include <algorithm>
#include <vector>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/typed.h"

namespace weft::cuda {
namespace {

static_assert(static_cast<int>(ops::Arithmetic::kAdd) == static_cast<int>(Binary::kAdd) &&
              static_cast<int>(ops::Arithmetic::kSubtract) == static_cast<int>(Binary::kSubtract) &&
              static_cast<int>(ops::Arithmetic::kMultiply) == static_cast<int>(Binary::kMultiply) &&
              static_cast<int>(ops::Arithmetic::kDivide) == static_cast<int>(Binary::kDivide));
static_assert(static_cast<int>(ops::Activation::kGeluTanh) == static_cast<int>(Curve::kGeluTanh) &&
              static_cast<int>(ops::Activation::kGeluErf) == static_cast<int>(Curve::kGeluErf) &&
              static_cast<int>(ops::Activation::kRelu) == static_cast<int>(Curve::kRelu) &&
              static_cast<int>(ops::Activation::kSilu) == static_cast<int>(Curve::kSilu) &&
              static_cast<int>(ops::Activation::kTanh) == static_cast<int>(Curve::kTanh) &&
              static_cast<int>(ops::Activation::kSigmoid) == static_cast<int>(Curve::kSigmoid));

Walk<3> broadcast_walk(const Tensor& a, const Tensor& b, const Tensor& out) {
  const size_t dims = static_cast<size_t>(out.shape().dims());
  const Strides of_a = ops::broadcast_strides(a, out.shape());
  const Strides of_b = ops::broadcast_strides(b, out.shape());
  return walk_of<3>(out.shape(),
                    {std::span(of_a).first(dims), std::span(of_b).first(dims), out.strides()});
}

Function function_of(cpu::Unary kind, double a, double b) {
  return {kind, static_cast<float>(a), static_cast<float>(b)};
}

Curve curve_of(ops::Activation kind) { return static_cast<Curve>(kind); }

}  // namespace

void Gpu::binary(ops::Arithmetic kind, const Tensor& a, const Tensor& b, const Tensor& out) {
  activate_device();
  const Walk<3> walk = broadcast_walk(a, b, out);
  for_floating(out, "arithmetic", [&]<typename T>() {
    cuda::binary(static_cast<Binary>(kind), walk, a.data<T>(), b.data<T>(), out.data<T>(), stream_);
  });
}

void Gpu::scale(const Tensor& x, double factor, const Tensor& out) {
  activate_device();
  const Tensor from = contiguous(x);
  for_floating(out, "scale", [&]<typename T>() {
    cuda::scale(from.data<T>(), factor, out.data<T>(), out.elements(), stream_);
  });
}

void Gpu::activate(ops::Activation kind, const Tensor& x, const Tensor& out) {
  activate_device();
  const Tensor from = contiguous(x);
  for_floating(out, "an activation", [&]<typename T>() {
    curve<T>(curve_of(kind), from.data<T>(), nullptr, out.data<T>(), 1, out.elements(), stream_);
  });
}

void Gpu::activate_backward(ops::Activation kind, const Tensor& x, const Tensor& dy,
                            const Tensor& dx) {
  activate_device();
  const Tensor from = contiguous(x), gradient = contiguous(dy);
  for_floating(dx, "an activation", [&]<typename T>() {
    curve_backward<T>(curve_of(kind), from.data<T>(), nullptr, gradient.data<T>(), dx.data<T>(), 1,
                      dx.elements(), stream_);
  });
}

void Gpu::unary(cpu::Unary kind, double a, double b, const Tensor& x, const Tensor& out) {
  activate_device();
  const Tensor from = contiguous(x);
  for_floating(out, "a function", [&]<typename T>() {
    cuda::unary(function_of(kind, a, b), from.data<T>(), out.data<T>(), out.elements(), stream_);
  });
}

void Gpu::unary_backward(cpu::Unary kind, double a, double b, const Tensor& x, const Tensor& dy,
                         const Tensor& dx) {
  activate_device();
  const Tensor from = contiguous(x), gradient = contiguous(dy);
  for_floating(dx, "a function", [&]<typename T>() {
    cuda::unary_backward(function_of(kind, a, b), from.data<T>(), gradient.data<T>(), dx.data<T>(),
                         dx.elements(), stream_);
  });
}

void Gpu::compare(cpu::Compare kind, const Tensor& a, const Tensor& b, const Tensor& out) {
  activate_device();
  const Walk<3> walk = broadcast_walk(a, b, out);
  const auto go = [&]<typename T>() {
    cuda::compare(kind, walk, a.data<T>(), b.data<T>(), out.data<uint8_t>(), stream_);
  };
  if (a.dtype() == DType::kI64) return go.operator()<int64_t>();
  if (a.dtype() == DType::kI32) return go.operator()<int32_t>();
  if (a.dtype() == DType::kU8) return go.operator()<uint8_t>();
  for_floating(a, "compare", go);
}

void Gpu::extreme(bool larger, const Tensor& a, const Tensor& b, const Tensor& out) {
  activate_device();
  const Walk<3> walk = broadcast_walk(a, b, out);
  for_floating(out, "an extreme", [&]<typename T>() {
    cuda::extreme(larger, walk, a.data<T>(), b.data<T>(), out.data<T>(), stream_);
  });
}

void Gpu::where(const Tensor& mask, const Tensor& a, const Tensor& b, const Tensor& out) {
  activate_device();
  const size_t dims = static_cast<size_t>(out.shape().dims());
  const Strides of_mask = ops::broadcast_strides(mask, out.shape());
  const Strides of_a = ops::broadcast_strides(a, out.shape());
  const Strides of_b = ops::broadcast_strides(b, out.shape());
  const Walk<4> walk =
      walk_of<4>(out.shape(), {std::span(of_mask).first(dims), std::span(of_a).first(dims),
                               std::span(of_b).first(dims), out.strides()});
  for_floating(out, "where", [&]<typename T>() {
    choose(walk, mask.data<uint8_t>(), a.data<T>(), b.data<T>(), out.data<T>(), stream_);
  });
}

void Gpu::swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) {
  activate_device();
  const Tensor left = contiguous(gate), right = contiguous(up);
  for_floating(out, "swiglu", [&]<typename T>() {
    cuda::swiglu(left.data<T>(), right.data<T>(), out.data<T>(), out.elements(), stream_);
  });
}

void Gpu::swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dy,
                          const Tensor& dgate, const Tensor& dup) {
  activate_device();
  const Tensor left = contiguous(gate), right = contiguous(up), gradient = contiguous(dy);
  for_floating(dgate, "swiglu", [&]<typename T>() {
    cuda::swiglu_backward(left.data<T>(), right.data<T>(), gradient.data<T>(), dgate.data<T>(),
                          dup.data<T>(), dgate.elements(), stream_);
  });
}

void Gpu::dropout(const Tensor& x, double rate, RandomKey key, const ops::GlobalIndex& where,
                  const Tensor& out) {
  activate_device();
  const Tensor from = contiguous(x);
  for_floating(out, "dropout", [&]<typename T>() {
    cuda::dropout(from.data<T>(), x.shape().extents(), where.global.extents(), where.offset, rate,
                  device_key(key), out.data<T>(), stream_);
  });
}

void Gpu::sum_middle(const Tensor& x, const ops::Split& split, double factor, int block_count,
                     const Tensor& out) {
  activate_device();
  const int64_t blocks = std::clamp<int64_t>(block_count, 1, std::max<int64_t>(1, split.extent));
  const Tensor room =
      scratch(Shape{sum_middle_scratch(split.outer, split.extent, split.inner, blocks)});
  for_floating(out, "a sum", [&]<typename T>() {
    cuda::sum_middle(x.data<T>(), split.outer, split.extent, split.inner, factor, blocks,
                     room.data<float>(), out.data<T>(), stream_);
  });
}

void Gpu::sum_of_squares(std::span<const Tensor> xs, const Tensor& out) {
  activate_device();
  std::vector<FloatArray> arrays;
  for (const Tensor& x : xs) arrays.push_back({x.data<float>(), x.elements()});
  const Tensor partials = scratch(Shape{sum_of_squares_scratch(arrays)}, DType::kF64);
  cuda::sum_of_squares(arrays, partials.data<double>(), out.data<double>(), stream_);
}

void Gpu::largest_size(std::span<const Tensor> xs, const Tensor& largest) {
  activate_device();
  fill(largest, 0);
  const Tensor partials = scratch(Shape{kPartials});
  for (const Tensor& x : xs) {
    if (x.elements() == 0) continue;
    cuda::largest_size(x.data<float>(), x.elements(), partials.data<float>(), largest.data<float>(),
                       stream_);
  }
}

void Gpu::cut_squares(std::span<const Tensor> xs, double first, double second, const Tensor& sums) {
  activate_device();
  fill(sums, 0);
  const Tensor partials = scratch(Shape{2 * kPartials}, DType::kF64);
  for (const Tensor& x : xs) {
    if (x.elements() == 0) continue;
    cuda::cut_squares(x.data<float>(), x.elements(), first, second, partials.data<double>(),
                      sums.data<double>(), stream_);
  }
}

void Gpu::adamw(std::span<const AdamWUpdate> updates) {
  activate_device();
  // What the passes compute with.
  const auto type_of = [](const AdamWUpdate& update) {
    if (update.parameter.low) return DType::kBF16;
    return update.rounded ? DType::kF16 : DType::kF32;
  };
  const auto update = [&]<typename W>() {
    std::vector<AdamWArrays<float, W>> arrays;
    for (const AdamWUpdate& each : updates) {
      if (type_of(each) != DTypeOf<W>::value) continue;
      const cpu::AdamWFactors& factors = each.factors;
      const auto& [numbers, low] = each.parameter;
      const Tensor& working = low ? numbers : each.rounded;
      const Tensor& kept = low ? low : numbers;
      arrays.push_back({.constants = {.keep = factors.keep,
                                      .beta1 = factors.beta1,
                                      .rest1 = factors.rest1,
                                      .beta2 = factors.beta2,
                                      .rest2 = factors.rest2,
                                      .step = factors.step,
                                      .root = factors.root,
                                      .epsilon = factors.epsilon,
                                      .gradient_scale = factors.scale},
                        .g = each.gradient.data<float>(),
                        .p = kept.data<AdamWKept<W>>(),
                        .m = each.first_moment.data<float>(),
                        .v = each.second_moment.data<float>(),
                        .working = working ? working.data<W>() : nullptr,
                        .n = each.parameter.elements()});
    }
    if (!arrays.empty()) cuda::adamw<float, W>(arrays, nullptr, stream_);
  };
  update.operator()<float>();
  update.operator()<bfloat16>();
  update.operator()<float16>();
}

}  // namespace weft::cuda
