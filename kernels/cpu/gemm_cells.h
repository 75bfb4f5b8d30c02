// Matrix products cut into cells by the caller, so that an element's bits do not depend on how much
// of the result or of the sum is computed here: each cell is one single-threaded library call whose
// sizes and strides follow from the cut alone, and the blocks of a sum are merged in one fixed
// binary tree.
//
// An operand's cell that does not lie contiguously is copied first; the strides of what a rank
// holds would choose the libraries' code.
//
// Thread safety: as gemm.h. Ownership: the copies of b live as long as the call.
#pragma once

#include <span>
#include <vector>

#include "kernels/cpu/gemm.h"

namespace weft::cpu {

// [start, start + length); along a sum, of that one of the matrices that it runs over.
struct Extent {
  int64_t start = 0, length = 0, matrix = 0;
};

struct CellCut {
  std::vector<Extent> rows, columns;  // of the result: its cells
  // Blocks of the sum, each of one run or of several that are summed as one; as many as a node of
  // the tree has.
  std::vector<std::vector<Extent>> depth;
};

// The sum of the products a[i] b[i], all of a and all of b stored alike. `take` gets the sums of
// each cell, as in gemm_tiles.
template <typename T>
void gemm_cells(ThreadPool& pool, Allocator& allocator, const CellCut& cut,
                std::span<const Matrix<T>> a, std::span<const Matrix<T>> b,
                const TakeTile<T>& take);

// Each of the extents in as many equal parts as it takes for none to be longer than `most`.
std::vector<Extent> parts_of(std::span<const Extent> extents, int64_t most);
// `count` equal blocks of [0, whole), which they divide.
std::vector<Extent> equal_blocks(int64_t whole, int64_t count);

}  // namespace weft::cpu
