// From tensors to what kernels take: element types and walks.
//
// Thread safety: pure.
#pragma once

#include <string>
#include <string_view>

#include "kernels/cuda/walk.h"
#include "kernels/tensor/tensor.h"
#include "proto/base/check.h"
#include "proto/base/status.h"

namespace weft::cuda {

// Throws StatusError(kInvalidArgument): `what` has no kernel for the device of x.
[[noreturn]] inline void throw_no_kernel(const Tensor& x, const std::string& what) {
  throw StatusError(
      Status(Code::kInvalidArgument, what + " has no kernel for " + x.device().to_string()));
}

// Calls f.operator()<T>() with the element type of x: float, bfloat16 or float16; of other tensors
// `what` has no kernel.
template <typename F>
void for_floating(const Tensor& x, std::string_view what, F&& f) {
  switch (x.dtype()) {
    case DType::kF32:
      return f.template operator()<float>();
    case DType::kBF16:
      return f.template operator()<bfloat16>();
    case DType::kF16:
      return f.template operator()<float16>();
    default:
      throw_no_kernel(x, std::string(what) + " of " + std::string(dtype_name(x.dtype())));
  }
}

template <int kArrays>
Walk<kArrays> walk_of(const Shape& shape, const std::span<const int64_t> (&strides)[kArrays]) {
  static_assert(Shape::kDimsMax <= kWalkDims);
  Walk<kArrays> walk;
  WEFT_CHECK(make_walk<kArrays>(shape.extents(), strides, walk), "a walk over {}",
             shape.to_string());
  return walk;
}

}  // namespace weft::cuda
