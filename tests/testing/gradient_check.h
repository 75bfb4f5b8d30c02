// Gradients of the tape against central finite differences, in float64.
//
// Ownership: the caller keeps the context's allocator and pool alive.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "kernels/autograd/tape.h"
#include "kernels/ops/ops.h"

namespace weft::testing {

// Memory and threads for a test.
struct Bench {
  explicit Bench(int threads = 2) : pool(threads) {}
  std::unique_ptr<Allocator> allocator = make_caching_allocator();
  ThreadPool pool;
  Tape tape;
  Context context{*allocator, pool};
};

// Standard normal values times `scale`, the same for a seed everywhere.
template <typename T = double>
Tensor random_tensor(Context& cx, Shape shape, uint64_t seed, double scale = 1) {
  Tensor tensor = Tensor::empty(cx.allocator, shape, DTypeOf<T>::value);
  for (int64_t i = 0; i < shape.elements(); ++i) {
    tensor.data<T>()[i] = static_cast<T>(scale * normal_at({seed, 7}, static_cast<uint64_t>(i)));
  }
  return tensor;
}

inline Tensor ids(Context& cx, Shape shape, const std::vector<int64_t>& values) {
  return Tensor::from<int64_t>(cx.allocator, shape, values);
}

// The element at row-major index `index` after adding `add` to it, any strides.
template <typename T>
double at_flat(const Tensor& x, int64_t index, double add = 0) {
  int64_t offset = 0;
  for (int dim = x.shape().dims() - 1; dim >= 0; --dim) {
    offset += index % x.shape()[dim] * x.strides()[static_cast<size_t>(dim)];
    index /= x.shape()[dim];
  }
  return static_cast<double>(x.data<T>()[offset] += static_cast<T>(add));
}

using Function = std::function<Tensor(Context&, std::span<const Tensor>)>;

inline double weight_of(int64_t element) {
  return normal_at({99, 3}, static_cast<uint64_t>(element));
}

// sum(f(inputs) * weights) with fixed weights, so that every output element counts differently.
inline double weighted(Context& cx, const Function& f, std::span<const Tensor> inputs) {
  const NoGrad plain(cx);
  const std::vector<double> values = f(cx, inputs).to_vector<double>();
  double total = 0;
  for (size_t i = 0; i < values.size(); ++i)
    total += values[i] * weight_of(static_cast<int64_t>(i));
  return total;
}

// Checks every element of the gradient of each input that requires one. Errors are relative to
// 1 + the largest gradient.
inline void expect_gradients(Context& cx, std::vector<Tensor> inputs, const Function& f,
                             double tolerance = 1e-7, double step = 1e-5) {
  Tape tape;
  Context recording = cx;
  recording.tape = &tape;
  const Tensor output = f(recording, inputs);
  const Tensor seed = Tensor::empty(cx.allocator, output.shape(), DType::kF64);
  for (int64_t i = 0; i < seed.elements(); ++i) seed.data<double>()[i] = weight_of(i);
  tape.backward(recording, output, seed);
  EXPECT_EQ(tape.size(), 0U);
  for (size_t input = 0; input < inputs.size(); ++input) {
    const Tensor& x = inputs[input];
    if (!x.requires_grad() || x.elements() == 0 || output.elements() == 0) continue;
    ASSERT_TRUE(x.grad()) << "input " << input << " got no gradient";
    EXPECT_EQ(x.grad().shape(), x.shape());
    const std::vector<double> gradient = x.grad().to_vector<double>();
    double largest = 0;
    for (const double g : gradient) largest = std::max(largest, std::abs(g));
    for (int64_t i = 0; i < x.elements(); ++i) {
      at_flat<double>(x, i, step);
      const double above = weighted(cx, f, inputs);
      at_flat<double>(x, i, -2 * step);
      const double below = weighted(cx, f, inputs);
      at_flat<double>(x, i, step);
      const double numeric = (above - below) / (2 * step);
      ASSERT_NEAR(gradient[static_cast<size_t>(i)], numeric, tolerance * (1 + largest))
          << "input " << input << " element " << i;
    }
  }
}

// |actual - expected| <= tolerance * (1 + the largest expected).
inline void expect_close(const Tensor& actual, const std::vector<double>& expected,
                         double tolerance) {
  ASSERT_EQ(static_cast<size_t>(actual.elements()), expected.size());
  double largest = 0;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  for (int64_t i = 0; i < actual.elements(); ++i) {
    const double value =
        actual.dtype() == DType::kF64 ? at_flat<double>(actual, i) : at_flat<float>(actual, i);
    ASSERT_NEAR(value, expected[static_cast<size_t>(i)], tolerance * (1 + largest))
        << "element " << i;
  }
}

}  // namespace weft::testing
