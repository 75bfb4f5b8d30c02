#include "kernels/cpu/gemm_cells.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "kernels/cpu/gemm_libraries.h"
#include "proto/base/check.h"

namespace weft::cpu {
namespace {

int64_t length_of(std::span<const Extent> runs) {
  int64_t length = 0;
  for (const Extent& run : runs) length += run.length;
  return length;
}

// One operand of one cell: these rows and columns of the matrices x.
template <typename T>
struct Cell {
  std::span<const Matrix<T>> x;
  std::span<const Extent> rows, columns;

  // As they are stored.
  std::span<const Extent> lines() const { return x[0].transposed ? columns : rows; }
  std::span<const Extent> along() const { return x[0].transposed ? rows : columns; }
  // Of the two runs the one along the sum says which.
  const Matrix<T>& matrix(const Extent& some, const Extent& run) const {
    return x[static_cast<size_t>(some.matrix + run.matrix)];
  }
  int64_t width() const { return length_of(along()); }
  bool contiguous() const {
    return lines().size() == 1 && along().size() == 1 &&
           width() == matrix(lines()[0], along()[0]).row_stride;
  }
  Matrix<T> in_place() const {
    const Matrix<T>& all = matrix(lines()[0], along()[0]);
    return {all.data + lines()[0].start * all.row_stride + along()[0].start, all.row_stride,
            all.transposed};
  }
  Matrix<T> packed(T* to) const {
    const Matrix<T> result{to, width(), x[0].transposed};
    for (const Extent& some : lines()) {
      for (int64_t line = some.start; line < some.start + some.length; ++line) {
        for (const Extent& run : along()) {
          const Matrix<T>& all = matrix(some, run);
          const T* from = all.data + line * all.row_stride + run.start;
          std::memcpy(to, from, static_cast<size_t>(run.length) * sizeof(T));
          to += run.length;
        }
      }
    }
    return result;
  }
};

// b's cells, made ready: cell (block of the sum, columns) at [block * columns + column].
template <typename T>
class ReadyCells {
 public:
  ReadyCells(ThreadPool& pool, Allocator& allocator, const CellCut& cut,
             std::span<const Matrix<T>> b)
      : allocator_(allocator), cells_(cut.depth.size() * cut.columns.size()) {
    const auto cell_at = [&](size_t index) {
      const size_t count = cut.columns.size();
      return Cell<T>{b, cut.depth[index / count], {&cut.columns[index % count], 1}};
    };
    std::vector<int64_t> places;
    int64_t elements = 0;
    for (size_t i = 0; i < cells_.size(); ++i) {
      const Cell<T> cell = cell_at(i);
      places.push_back(elements);
      if (!cell.contiguous()) elements += length_of(cell.rows) * length_of(cell.columns);
    }
    bytes_ = static_cast<size_t>(elements) * sizeof(T);
    memory_ = bytes_ == 0 ? nullptr : static_cast<T*>(allocator.allocate(bytes_));
    pool.parallel_for(std::ssize(cells_), 1, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        const Cell<T> cell = cell_at(i);
        cells_[i] = cell.contiguous() ? cell.in_place() : cell.packed(memory_ + places[i]);
      }
    });
  }
  ~ReadyCells() {
    if (memory_ != nullptr) allocator_.release(memory_, bytes_);
  }
  ReadyCells(const ReadyCells&) = delete;
  ReadyCells& operator=(const ReadyCells&) = delete;

  const Matrix<T>& operator[](size_t index) const { return cells_[index]; }

 private:
  Allocator& allocator_;
  std::vector<Matrix<T>> cells_;
  T* memory_ = nullptr;
  size_t bytes_ = 0;
};

// What one thread works with.
template <typename T>
class Worker {
 public:
  Worker(const CellCut& cut, std::span<const Matrix<T>> a, const ReadyCells<T>& b)
      : cut_(cut), a_(a), b_(b) {}

  void operator()(size_t row, size_t column, const TakeTile<T>& take) {
    if (row != row_) take_row(row);
    const Extent &rows = cut_.rows[row], &columns = cut_.columns[column];
    const int64_t size = rows.length * columns.length;
    const auto levels = static_cast<int64_t>(std::bit_width(cut_.depth.size()));
    const auto wanted = static_cast<size_t>(size * (levels + 1));
    if (sums_.size() < wanted) sums_.resize(wanted);
    node(0, cut_.depth.size(), rows.length, column, sums_.data());
    take({rows.start, rows.length, columns.start, columns.length}, sums_.data());
  }

 private:
  void take_row(size_t row) {
    row_ = row;
    blocks_.clear();
    int64_t elements = 0;
    const auto cell_at = [&](size_t block) {
      return Cell<T>{a_, {&cut_.rows[row], 1}, cut_.depth[block]};
    };
    for (size_t block = 0; block < cut_.depth.size(); ++block) {
      if (!cell_at(block).contiguous()) {
        elements += cut_.rows[row].length * length_of(cut_.depth[block]);
      }
    }
    if (std::ssize(packed_) < elements) packed_.resize(static_cast<size_t>(elements));
    T* at = packed_.data();
    for (size_t block = 0; block < cut_.depth.size(); ++block) {
      const Cell<T> cell = cell_at(block);
      blocks_.push_back(cell.contiguous() ? cell.in_place() : cell.packed(at));
      if (!cell.contiguous()) at += cut_.rows[row].length * length_of(cut_.depth[block]);
    }
  }

  // The blocks [first, last) into out; what lies behind it is free.
  void node(size_t first, size_t last, int64_t rows, size_t column, Sum<T>* out) {
    const int64_t columns = cut_.columns[column].length, size = rows * columns;
    if (last - first == 1) {
      multiply(Product<T, Sum<T>>{rows, columns, length_of(cut_.depth[first]), blocks_[first],
                                  b_[first * cut_.columns.size() + column], out, columns, false,
                                  Sum<T>{1}});
      return;
    }
    const auto middle =
        static_cast<size_t>(node_middle(static_cast<int64_t>(first), static_cast<int64_t>(last)));
    node(first, middle, rows, column, out);
    node(middle, last, rows, column, out + size);
    for (int64_t i = 0; i < size; ++i) out[i] += out[size + i];
  }

  const CellCut& cut_;
  const std::span<const Matrix<T>> a_;
  const ReadyCells<T>& b_;
  size_t row_ = ~size_t{0};
  std::vector<Matrix<T>> blocks_;  // a's cells of that row
  std::vector<T> packed_;
  std::vector<Sum<T>> sums_;
};

}  // namespace

template <typename T>
void gemm_cells(ThreadPool& pool, Allocator& allocator, const CellCut& cut,
                std::span<const Matrix<T>> a, std::span<const Matrix<T>> b,
                const TakeTile<T>& take) {
  WEFT_CHECK(!cut.depth.empty(), "a sum of no blocks");
  WEFT_CHECK(!a.empty() && a.size() == b.size(), "{} matrices by {}", a.size(), b.size());
  const ReadyCells<T> ready(pool, allocator, cut, b);
  const size_t across = cut.columns.size();
  pool.parallel_for(std::ssize(cut.rows) * std::ssize(cut.columns), 1,
                    [&](int64_t begin, int64_t end) {
                      Worker<T> worker(cut, a, ready);
                      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
                        worker(i / across, i % across, take);
                      }
                    });
}

std::vector<Extent> parts_of(std::span<const Extent> extents, int64_t most) {
  std::vector<Extent> parts;
  for (const Extent& extent : extents) {
    const int64_t count = std::max<int64_t>(1, (extent.length + most - 1) / most);
    for (int64_t i = 0; i < count && extent.length > 0; ++i) {
      const int64_t start = block_start(extent.length, count, i);
      parts.push_back({extent.start + start, block_start(extent.length, count, i + 1) - start});
    }
  }
  return parts;
}

std::vector<Extent> equal_blocks(int64_t whole, int64_t count) {
  WEFT_CHECK(count > 0 && whole % count == 0, "{} blocks of {}", count, whole);
  std::vector<Extent> blocks;
  for (int64_t i = 0; i < count; ++i) blocks.push_back({i * (whole / count), whole / count});
  return blocks;
}

template void gemm_cells(ThreadPool&, Allocator&, const CellCut&, std::span<const Matrix<float>>,
                         std::span<const Matrix<float>>, const TakeTile<float>&);
template void gemm_cells(ThreadPool&, Allocator&, const CellCut&, std::span<const Matrix<bfloat16>>,
                         std::span<const Matrix<bfloat16>>, const TakeTile<bfloat16>&);

}  // namespace weft::cpu
