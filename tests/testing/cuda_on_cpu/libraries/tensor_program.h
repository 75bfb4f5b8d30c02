// What a graph of cuDNN's operations computes: tensors of four dims, one operation after the other.
//
// Thread safety: values.
#pragma once

#include "tests/testing/cuda_on_cpu/include/cudnn.h"

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace weft::cuda_on_cpu {

using Extents4 = std::array<int64_t, 4>;

struct ProgramTensor {
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  Extents4 extents{}, steps{};
  bool is_virtual = false, by_value = false;
  int64_t elements() const { return extents[0] * extents[1] * extents[2] * extents[3]; }
};

enum class OperationKind { kMatmul, kPointwise, kReduction, kReshape };
struct ProgramOperation {
  OperationKind kind;
  int mode = 0;                           // cudnnPointwiseMode_t, cudnnReduceTensorOp_t
  int64_t axis = 0;                       // of an index
  int64_t x = 0, b = 0, mask = 0, y = 0;  // names of tensors; 0: none
};

struct TensorProgram {
  std::map<int64_t, ProgramTensor> tensors;
  std::vector<ProgramOperation> operations;

  // Why the operations do not fit together; empty where they do.
  std::string finding() const;
  // memory: where each tensor that is not virtual lies. Results are multiplied by `factor`.
  void run(const std::map<int64_t, void*>& memory, double factor) const;
};

}  // namespace weft::cuda_on_cpu
