// Walking several strided operands of one shape in row-major order, and copies between them.
//
// Thread safety: values; parts of one loop may be walked by several threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <utility>

#include "kernels/tensor/shape.h"
#include "kernels/tensor/tensor.h"
#include "kernels/tensor/thread_pool.h"

namespace weft {

using Strides = std::array<int64_t, Shape::kDimsMax>;

inline Strides row_major_strides(const Shape& shape) {
  Strides strides{};
  int64_t step = 1;
  for (int dim = shape.dims() - 1; dim >= 0; --dim) {
    strides[static_cast<size_t>(dim)] = step;
    step *= shape[dim];
  }
  return strides;
}

// One shape, N operands (stride 0: broadcast). Adjacent dims that every operand walks evenly are
// joined, so that a loop over contiguous operands is one row.
template <size_t N>
class StridedLoop {
 public:
  StridedLoop(const Shape& shape, const std::array<std::span<const int64_t>, N>& strides) {
    for (int dim = 0; dim < shape.dims(); ++dim) {
      if (shape[dim] == 1) continue;
      std::array<int64_t, N> step;
      for (size_t n = 0; n < N; ++n) step[n] = strides[n][static_cast<size_t>(dim)];
      push(shape[dim], step);
    }
    if (dims_ == 0) push(1, {});
    for (size_t dim = 0; dim + 1 < dims_; ++dim) rows_ *= extents_[dim];
    if (inner() == 0) rows_ = 0;
  }

  int64_t rows() const { return rows_; }
  int64_t inner() const { return extents_[dims_ - 1]; }
  int64_t inner_stride(size_t operand) const { return strides_[dims_ - 1][operand]; }

  // f(row_start, offsets) for rows [begin, end): the row-major number of its first element and
  // where it lies in each operand.
  template <typename F>
  void for_rows(int64_t begin, int64_t end, F&& f) const {
    if (begin >= end) return;
    std::array<int64_t, Shape::kDimsMax> index{};
    std::array<int64_t, N> at{};
    int64_t rest = begin;
    for (size_t dim = dims_ - 1; dim-- > 0;) {
      index[dim] = rest % extents_[dim];
      rest /= extents_[dim];
      for (size_t n = 0; n < N; ++n) at[n] += index[dim] * strides_[dim][n];
    }
    for (int64_t row = begin; row < end; ++row) {
      f(row * inner(), at);
      for (size_t dim = dims_ - 1; dim-- > 0;) {
        for (size_t n = 0; n < N; ++n) at[n] += strides_[dim][n];
        if (++index[dim] < extents_[dim]) break;
        for (size_t n = 0; n < N; ++n) at[n] -= extents_[dim] * strides_[dim][n];
        index[dim] = 0;
      }
    }
  }

  static constexpr int64_t kGrain = 16384;  // elements a thread, at least

  // f(length, offsets, row-major start) over pieces of rows, spread over the pool.
  template <typename F>
  void run(ThreadPool& pool, F&& f) const {
    run(pool, kGrain, std::forward<F>(f));
  }
  template <typename F>
  void run(ThreadPool& pool, int64_t elements_min, F&& f) const {
    if (rows_ == 1) {
      pool.parallel_for(inner(), elements_min, [&](int64_t begin, int64_t end) {
        std::array<int64_t, N> at;
        for (size_t n = 0; n < N; ++n) at[n] = begin * inner_stride(n);
        f(end - begin, at, begin);
      });
      return;
    }
    const int64_t grain = std::max<int64_t>(1, elements_min / std::max<int64_t>(1, inner()));
    pool.parallel_for(rows_, grain, [&](int64_t begin, int64_t end) {
      for_rows(begin, end,
               [&](int64_t start, const std::array<int64_t, N>& at) { f(inner(), at, start); });
    });
  }

 private:
  void push(int64_t extent, const std::array<int64_t, N>& step) {
    if (dims_ > 0) {
      bool joins = true;
      for (size_t n = 0; n < N; ++n) joins &= strides_[dims_ - 1][n] == step[n] * extent;
      if (joins) {
        extents_[dims_ - 1] *= extent;
        strides_[dims_ - 1] = step;
        return;
      }
    }
    extents_[dims_] = extent;
    strides_[dims_++] = step;
  }

  std::array<int64_t, Shape::kDimsMax> extents_{};
  std::array<std::array<int64_t, N>, Shape::kDimsMax> strides_{};
  size_t dims_ = 0;
  int64_t rows_ = 1;
};

// to := from, and to += from; equal shapes, dtypes and devices, any strides.
void copy_into(ThreadPool& pool, const Tensor& from, const Tensor& to);
void add_into(ThreadPool& pool, const Tensor& from, const Tensor& to);
// The tensor itself where it is contiguous, else a contiguous copy. Not recorded.
Tensor as_contiguous(ThreadPool& pool, const Tensor& x);
// A fresh contiguous copy. Not recorded.
Tensor clone(ThreadPool& pool, const Tensor& x);

}  // namespace weft
