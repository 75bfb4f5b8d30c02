// From a DType to a type: calls f.operator()<T>().
#pragma once

#include <utility>

#include "kernels/tensor/dtype.h"

namespace weft {

// F32 and F64: what arithmetic is done in. Half types are computed with in float (Op::native).
template <typename F>
decltype(auto) dispatch_floating(DType dtype, F&& f) {
  WEFT_CHECK(dtype == DType::kF32 || dtype == DType::kF64, "dtype {} where F32 or F64 is needed",
             dtype_name(dtype));
  if (dtype == DType::kF64) return f.template operator()<double>();
  return f.template operator()<float>();
}

template <typename F>
decltype(auto) dispatch_all(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF64:
      return f.template operator()<double>();
    case DType::kI64:
      return f.template operator()<int64_t>();
    case DType::kI32:
      return f.template operator()<int32_t>();
    case DType::kU8:
      return f.template operator()<uint8_t>();
    case DType::kBF16:
      return f.template operator()<bfloat16>();
    case DType::kF16:
      return f.template operator()<float16>();
    case DType::kF32:
      break;
  }
  return f.template operator()<float>();
}

}  // namespace weft
