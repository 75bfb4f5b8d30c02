// The elements of a tensor of any floating type in double, on the host, and of its gradient.
#pragma once

#include <vector>

#include "kernels/tensor/tensor.h"

namespace weft::golden {

inline std::vector<double> wide_values(const Tensor& x) {
  if (x.dtype() == DType::kF64) return x.to_vector<double>();
  const std::vector<float> values = x.to_vector<float>();
  return {values.begin(), values.end()};
}

// Of a parameter; zeros where it has none, as of what the loss does not reach.
inline std::vector<double> wide_gradient(const Tensor& parameter) {
  const Tensor gradient = parameter.grad();
  return gradient ? wide_values(gradient)
                  : std::vector<double>(static_cast<size_t>(parameter.elements()));
}

}  // namespace weft::golden
