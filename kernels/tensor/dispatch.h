// From a DType to a type: calls f.operator()<T>().
#pragma once

#include <utility>

#include "kernels/tensor/dtype.h"

namespace weft {

template <typename F>
decltype(auto) dispatch_floating(DType dtype, F&& f) {
  WEFT_CHECK(is_floating(dtype), "dtype {} where F32 or F64 is needed", dtype_name(dtype));
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
    case DType::kF32:
      break;
  }
  return f.template operator()<float>();
}

}  // namespace weft
