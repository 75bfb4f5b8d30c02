// Tensors of the parallel tests: drawn by global index, so that every rank can make the whole and
// cut its own part.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/autograd/tape.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/strided.h"
#include "worker/parallel/collective_ops.h"
#include "worker/parallel/rank.h"

namespace weft::testing {

inline Tensor drawn(Context& cx, Shape shape, uint64_t stream, DType dtype = DType::kF64) {
  Tensor tensor = Tensor::empty(cx.allocator, shape, dtype);
  for (int64_t i = 0; i < tensor.elements(); ++i) {
    const double value = normal_at({99, stream}, static_cast<uint64_t>(i));
    if (dtype == DType::kF64) {
      tensor.data<double>()[i] = value;
    } else {
      tensor.data<float>()[i] = static_cast<float>(value);
    }
  }
  return tensor;
}

// This rank's part along dim, a copy outside autograd.
inline Tensor cut(Context& cx, const Communicator& comm, const Tensor& whole, int dim) {
  const Part part = part_of(whole.shape()[dim], comm.size(), comm.rank());
  const NoGrad inside(cx);
  return clone(cx.pool, ops::slice(cx, whole.detach(), dim, part.start, part.length));
}

inline Tensor leaf(Tensor tensor) {
  tensor.set_requires_grad(true);
  return tensor;
}

inline void expect_near(const Tensor& actual, const Tensor& expected, double tolerance,
                        const std::string& what) {
  ASSERT_TRUE(actual) << what;
  ASSERT_EQ(actual.shape().to_string(), expected.shape().to_string()) << what;
  const auto a = actual.to_vector<double>(), e = expected.to_vector<double>();
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_NEAR(a[i], e[i], tolerance * (1 + std::abs(e[i]))) << what << " at " << i;
  }
}

}  // namespace weft::testing
