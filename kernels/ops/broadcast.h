// Walking operands of an elementwise kernel on the CPU, broadcast to the shape of a contiguous
// result; for the ops' own files.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernels/cpu/past_caches.h"
#include "kernels/ops/common.h"

namespace weft::ops {

// A piece of an operand as a row of step 0 or 1: where it lies, or gathered into a buffer.
template <typename T>
class RowPiece {
 public:
  static constexpr int64_t kElements = 256;
  RowPiece(const T* base, int64_t step) : base_(base), step_(step) {}
  bool strided() const { return step_ > 1; }
  int64_t step() const { return strided() ? 1 : step_; }
  const T* at(int64_t offset, int64_t n) {
    const T* from = base_ + offset;
    if (!strided()) return from;
    for (int64_t i = 0; i < n; ++i) buffer_[i] = from[i * step_];
    return buffer_;
  }
  int64_t advance(int64_t elements) const { return elements * step_; }

 private:
  const T* const base_;
  const int64_t step_;
  T buffer_[kElements];
};

// f(x, step_x, y, step_y, z, n) over rows of a, b and out; steps are 0 or 1, z is a Target.
template <typename T, typename To, typename F>
void for_row_pairs(Context& cx, const Tensor& a, const Tensor& b, const Tensor& out, F f) {
  const Shape& shape = out.shape();
  const size_t dims = static_cast<size_t>(shape.dims());
  const Strides sa = broadcast_strides(a, shape), sb = broadcast_strides(b, shape);
  const StridedLoop<3> loop(shape,
                            {std::span(sa).first(dims), std::span(sb).first(dims), out.strides()});
  WEFT_CHECK(loop.inner() == 1 || loop.inner_stride(2) == 1, "results are contiguous");
  loop.run(cx.pool, [&](int64_t n, const std::array<int64_t, 3>& at, int64_t) {
    const cpu::PastCaches past(out.bytes(), static_cast<size_t>(n) * sizeof(To));
    RowPiece<T> x(a.data<T>(), loop.inner_stride(0)), y(b.data<T>(), loop.inner_stride(1));
    const bool whole = !x.strided() && !y.strided();
    const int64_t piece = whole ? n : RowPiece<T>::kElements;
    for (int64_t done = 0; done < n; done += piece) {
      const int64_t count = std::min(piece, n - done);
      f(x.at(at[0] + x.advance(done), count), x.step(), y.at(at[1] + y.advance(done), count),
        y.step(), cpu::Target<To>(out.data<To>() + at[2] + done, past), count);
    }
  });
}

}  // namespace weft::ops
