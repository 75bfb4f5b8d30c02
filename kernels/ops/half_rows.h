// Kernels over rows that take bf16 as it lies. Most loops widen it themselves (kernels/cpu/norms.h,
// rows.h); else a piece is widened into a buffer that stays in the first-level cache, the
// fp32 loop runs on it, and the result is rounded once. Rows of float and double are worked on in
// place. Not for the ops' users.
//
// Thread safety: a RowBuffer belongs to one thread.
#pragma once

#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/autograd/context.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/wide.h"
#include "kernels/tensor/dispatch.h"

namespace weft::ops {

using cpu::Wide;

// f.operator()<T>() for F32, F64 and BF16.
template <typename F>
decltype(auto) dispatch_rows(DType dtype, F&& f) {
  if (dtype == DType::kBF16) return f.template operator()<bfloat16>();
  return dispatch_floating(dtype, std::forward<F>(f));
}

// Whether rows of x may be scaled by this parameter (gamma, beta): it is of their type or of what
// they are computed in.
inline bool scales(const Tensor& parameter, const Tensor& x) {
  return parameter.dtype() == x.dtype() || parameter.dtype() == gradient_dtype(x.dtype());
}

// Such a parameter as it is computed with.
inline Tensor wide(Context& cx, const Tensor& x) {
  return cpu::converted(cx.pool, as_contiguous(cx.pool, x), gradient_dtype(x.dtype()));
}

template <typename T>
class RowBuffer {
 public:
  static constexpr bool kInPlace = std::is_same_v<T, Wide<T>>;
  explicit RowBuffer(int64_t width) : values_(kInPlace ? 0 : static_cast<size_t>(width)) {}

  // The first n elements at x, to be computed with.
  const Wide<T>* read(const T* x, int64_t n) {
    if constexpr (kInPlace) {
      return x;
    } else {
      cpu::widen(x, values_.data(), n);
      return values_.data();
    }
  }
  // Where the row that belongs at y is computed; write(y, n) brings it there.
  Wide<T>* target(T* y) {
    if constexpr (kInPlace) {
      return y;
    } else {
      return values_.data();
    }
  }
  void write(T* y, int64_t n) const {
    if constexpr (!kInPlace) cpu::round(values_.data(), y, n);
  }

 private:
  std::vector<Wide<T>> values_;
};

}  // namespace weft::ops
