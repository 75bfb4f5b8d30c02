#include "worker/parallel/cell_products.h"

#include <algorithm>
#include <array>
#include <limits>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"

namespace weft::parallel {
namespace {

using cpu::CellCut;
using cpu::Extent;

constexpr uintptr_t kAlignment = 256;  // in bytes; libraries look at no more

int64_t length_of(std::span<const Extent> runs) {
  int64_t length = 0;
  for (const Extent& run : runs) length += run.length;
  return length;
}

Tensor rectangle(const Tensor& x, const Extent& rows, const Extent& columns) {
  const int64_t width = x.dim(1);
  return x.view({rows.length, columns.length}, std::array<int64_t, 2>{width, 1},
                rows.start * width + columns.start);
}

// Whether a view of `width` columns lies as a tensor of its own would.
bool stands_alone(const Tensor& view, int64_t width) {
  return view.dim(1) == width && reinterpret_cast<uintptr_t>(view.raw()) % kAlignment == 0;
}

// A cell of a side, made ready for the library: in place or copied.
Tensor ready_cell(Context& cx, const Operand& side, std::span<const Extent> rows,
                  std::span<const Extent> columns) {
  const std::span<const Extent> lines = side.transposed ? columns : rows;
  const std::span<const Extent> along = side.transposed ? rows : columns;
  // Of the two runs the one along the sum says which.
  const auto matrix = [&](const Extent& some, const Extent& run) {
    return side.matrices[static_cast<size_t>(some.matrix + run.matrix)];
  };
  Tensor cell;
  if (lines.size() == 1 && along.size() == 1) {
    const Tensor& all = matrix(lines[0], along[0]);
    const Tensor view = rectangle(all, lines[0], along[0]);
    if (stands_alone(view, all.dim(1))) cell = view;
  }
  if (!cell) {
    cell =
        Tensor::empty(cx.allocator, {length_of(lines), length_of(along)}, side.matrices[0].dtype());
    Extent line, place;  // of the cell
    for (const Extent& some : lines) {
      line.length = some.length;
      place.start = 0;
      for (const Extent& run : along) {
        place.length = run.length;
        copy_into(cx.pool, rectangle(matrix(some, run), some, run), rectangle(cell, line, place));
        place.start += run.length;
      }
      line.start += some.length;
    }
  }
  return side.transposed ? ops::transposed_view(cell) : cell;
}

// The nodes [first, last) of a sum into out, [rows, columns], contiguous.
void sum_node(Context& cx, std::span<const Tensor> a, std::span<const Tensor> b,
              const Tensor& out) {
  if (a.size() == 1) return cuda::backend(cx).matmul(a[0], b[0], 0, out);
  const auto middle = static_cast<size_t>(cpu::node_middle(0, std::ssize(a)));
  const Tensor other = Tensor::empty(cx.allocator, out.shape(), out.dtype());
  sum_node(cx, a.first(middle), b.first(middle), out);
  sum_node(cx, a.subspan(middle), b.subspan(middle), other);
  add_into(cx.pool, other, out);
}

void on_gpu(Context& cx, const CellCut& cut, const Operand& a, const Operand& b, const Tensor& to,
            bool fresh) {
  const size_t blocks = cut.depth.size();
  std::vector<Tensor> lefts, rights(blocks);  // of all rows, [row][block]; of one column
  for (const Extent& rows : cut.rows) {
    for (const auto& block : cut.depth) lefts.push_back(ready_cell(cx, a, {&rows, 1}, block));
  }
  for (const Extent& columns : cut.columns) {
    for (size_t i = 0; i < blocks; ++i) {
      rights[i] = ready_cell(cx, b, cut.depth[i], {&columns, 1});
    }
    for (size_t row = 0; row < cut.rows.size(); ++row) {
      const Tensor place = rectangle(to, cut.rows[row], columns);
      const bool direct = fresh && stands_alone(place, to.dim(1));
      const Tensor sums =
          direct ? place : Tensor::empty(cx.allocator, place.shape(), place.dtype());
      sum_node(cx, std::span(lefts).subspan(row * blocks, blocks), rights, sums);
      if (!fresh) add_into(cx.pool, sums, place);
      if (fresh && !direct) copy_into(cx.pool, sums, place);
    }
  }
}

template <typename T>
std::vector<cpu::Matrix<T>> matrices(const Operand& side) {
  std::vector<cpu::Matrix<T>> all;
  for (const Tensor& x : side.matrices) all.push_back({x.data<T>(), x.dim(1), side.transposed});
  return all;
}

template <typename T>
void on_cpu(Context& cx, const CellCut& cut, const Operand& a, const Operand& b, const Tensor& to,
            bool fresh) {
  const int64_t width = to.dim(1);
  const auto take = [&](const cpu::GemmTile& tile, const float* sums) {
    for (int64_t row = tile.row; row < tile.row + tile.rows; ++row, sums += tile.columns) {
      const int64_t at = row * width + tile.column;
      if (to.dtype() == DType::kBF16) {
        cpu::round(sums, to.data<bfloat16>() + at, tile.columns);
      } else if (fresh) {
        std::copy_n(sums, tile.columns, to.data<float>() + at);
      } else {
        cpu::rows<float>().add(sums, to.data<float>() + at, tile.columns);
      }
    }
  };
  cpu::gemm_cells<T>(cx.pool, cx.allocator, cut, matrices<T>(a), matrices<T>(b), take);
}

}  // namespace

CellLimits cell_limits(const Context& cx) {
  constexpr int64_t kAny = std::numeric_limits<int64_t>::max() / 2;
  return cx.device().is_cpu() ? CellLimits{} : CellLimits{kAny, kAny, kAny};
}

void cell_products(Context& cx, const CellCut& cut, const Operand& a, const Operand& b,
                   const Tensor& to, bool fresh) {
  WEFT_CHECK(to.dtype() == DType::kF32 || (fresh && cut.depth.size() == 1), "{} blocks into {}",
             cut.depth.size(), dtype_name(to.dtype()));
  if (!cx.device().is_cpu()) return on_gpu(cx, cut, a, b, to, fresh);
  const DType dtype = a.matrices[0].dtype();
  if (dtype == DType::kBF16) return on_cpu<bfloat16>(cx, cut, a, b, to, fresh);
  WEFT_CHECK(dtype == DType::kF32, "blocks of {}", dtype_name(dtype));
  on_cpu<float>(cx, cut, a, b, to, fresh);
}

}  // namespace weft::parallel
