// The elements of a tensor of any floating type in double, on the host.
#pragma once

#include <vector>

#include "kernels/tensor/tensor.h"

namespace weft::golden {

inline std::vector<double> wide_values(const Tensor& x) {
  if (x.dtype() == DType::kF64) return x.to_vector<double>();
  const std::vector<float> values = x.to_vector<float>();
  return {values.begin(), values.end()};
}

}  // namespace weft::golden
