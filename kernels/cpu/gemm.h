// Matrix products: tiles handed out by our pool, each one single-threaded call of a library.
//
// bf16 matrices are multiplied with fp32 sums, which are rounded once where the result is bf16.
//
// Which library computes which class of products follows from the processor (gemm_choice.h).
//
// Thread safety: gemm from the rank's compute thread; called from inside a parallel_for body it
// runs on that thread. Invariants: 1. the tiles, and so the result, depend on the sizes and the
// choice of libraries only, not on the pool.
#pragma once

#include <cstdint>
#include <functional>
#include <type_traits>

#include "kernels/tensor/allocator.h"
#include "kernels/tensor/half.h"
#include "kernels/tensor/thread_pool.h"

namespace weft::cpu {

// A row-major matrix; transposed: the product uses data as if rows were columns.
template <typename T>
struct Matrix {
  const T* data = nullptr;
  int64_t row_stride = 0;  // elements from one stored row to the next
  bool transposed = false;

  // The same matrix (as the product sees it) without its first rows and columns.
  Matrix from(int64_t row, int64_t column) const {
    const int64_t offset = transposed ? column * row_stride + row : row * row_stride + column;
    return {data + offset, row_stride, transposed};
  }
};

// The part [row, row + rows) x [column, column + columns) of a product.
struct GemmTile {
  int64_t row = 0, rows = 0, column = 0, columns = 0;
};
// Called once for each tile of the result, on the thread that has just computed it and still has it
// in its cache: the place of biases, activations and sums.
using TileFunction = std::function<void(const GemmTile&)>;

// What products of T are summed in.
template <typename T>
using Sum = std::conditional_t<std::is_same_v<T, bfloat16>, float, T>;

// out[m, n] := factor * (a b)[m, n] + (accumulate ? out[m, n] : 0), a [m, k] and b [k, n] after
// their transposition; then `done` for each tile. T is float, double or bfloat16, Out is T or, of
// bfloat16, float.
template <typename T, typename Out>
void gemm(ThreadPool& pool, int64_t m, int64_t n, int64_t k, Matrix<T> a, Matrix<T> b, Out* out,
          int64_t out_stride, bool accumulate = false, Sum<T> factor = 1,
          const TileFunction& done = {});

// The same with k cut into `blocks` parts, each a product of its own, merged in one fixed binary
// tree. blocks <= 1: gemm. out [m, n] is contiguous.
template <typename T, typename Out>
void gemm_in_blocks(ThreadPool& pool, Allocator& allocator, int blocks, int64_t m, int64_t n,
                    int64_t k, Matrix<T> a, Matrix<T> b, Out* out, const TileFunction& done = {});

// The same, whose result stands nowhere as a whole: `take` gets the sums of each tile, [rows,
// columns], contiguous and its own to change, once, on the thread that has just computed them.
template <typename T>
using TakeTile = std::function<void(const GemmTile&, Sum<T>*)>;
template <typename T>
void gemm_tiles(ThreadPool& pool, Allocator& allocator, int blocks, int64_t m, int64_t n, int64_t k,
                Matrix<T> a, Matrix<T> b, const TakeTile<T>& take);

// One node of that tree: the sum of the blocks [first, last) of the `blocks` parts of a whole
// extent k, of which a's columns and b's rows hold those of the node only. Ranks that hold a node
// each and add their results pairwise get gemm_in_blocks' bits: where `last - first` halves
// (rounded up) from the root down.
template <typename T>
void gemm_node(ThreadPool& pool, Allocator& allocator, int blocks, int first, int last, int64_t m,
               int64_t n, int64_t k, Matrix<T> a, Matrix<T> b, Sum<T>* out);

// Where block `index` of `count` over [0, whole) starts; the first ones are larger by one.
constexpr int64_t block_start(int64_t whole, int64_t count, int64_t index) {
  const int64_t rest = whole % count;
  return whole / count * index + (index < rest ? index : rest);
}
// Where the node [first, last) of the tree is parted.
constexpr int64_t node_middle(int64_t first, int64_t last) {
  return first + (last - first + 1) / 2;
}

}  // namespace weft::cpu
