// Products of matrices cut into cells (kernels/cpu/gemm_cells.h) on a rank's device, for
// topology-invariant training. On a GPU a cell's block of a sum is one call of the library, whose
// algorithm follows from sizes, strides and alignments: operands and results that do not lie as
// tensors of their own would are copied, so that all of these follow from the cut, and the blocks
// are merged in the same tree in fp32.
//
// Thread safety and ownership: as collective_ops.h. Nothing is recorded. F32 and BF16.
#pragma once

#include <utility>
#include <vector>

#include "kernels/autograd/context.h"
#include "kernels/cpu/gemm_cells.h"
#include "kernels/tensor/tensor.h"

namespace weft::parallel {

// Contiguous matrices as they are stored, and whether they are meant the other way round: one, or
// of a sum of several products one of each.
struct Operand {
  Operand(Tensor x, bool other_way = false) : matrices{std::move(x)}, transposed(other_way) {}
  Operand(std::vector<Tensor> all, bool other_way)
      : matrices(std::move(all)), transposed(other_way) {}

  std::vector<Tensor> matrices;
  bool transposed = false;
};

// What cells are at most, where no block ends them: rows of a result, features that are cut anyway,
// and a whole side of a weight, whose cells lie contiguously if it is no longer. A GPU takes whole
// blocks.
struct CellLimits {
  int64_t rows = 256, features = 512, whole = 1024;
};
CellLimits cell_limits(const Context& cx);

// to [rows, columns], contiguous, := a b or, unless it is fresh, += that; of several matrices the
// sum of their products. `to` is F32 or, fresh and of a sum of one block, of the sides' dtype:
// rounded once.
void cell_products(Context& cx, const cpu::CellCut& cut, const Operand& a, const Operand& b,
                   const Tensor& to, bool fresh = true);

}  // namespace weft::parallel
