#include "cluster/comm/reduce_elements.h"

#include <type_traits>

namespace weft::comm {
namespace {

template <typename T>
bool is_nan(T value) {
  if constexpr (std::is_floating_point_v<T>) return value != value;
  return false;
}

template <typename T>
void reduce_typed(T* into, const T* from, int64_t count, ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      for (int64_t i = 0; i < count; ++i) into[i] += from[i];
      return;
    case ReduceOp::kMax:
      for (int64_t i = 0; i < count; ++i) {
        if (from[i] > into[i] || is_nan(from[i])) into[i] = from[i];
      }
      return;
    case ReduceOp::kMin:
      for (int64_t i = 0; i < count; ++i) {
        if (from[i] < into[i] || is_nan(from[i])) into[i] = from[i];
      }
      return;
  }
}

}  // namespace

void check_reducible(DType dtype) {
  WEFT_CHECK(dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kI64,
             "no reduction of {}", dtype_name(dtype));
}

void reduce_elements(void* into, const void* from, int64_t count, DType dtype, ReduceOp op) {
  check_reducible(dtype);
  if (dtype == DType::kF32) {
    reduce_typed(static_cast<float*>(into), static_cast<const float*>(from), count, op);
  } else if (dtype == DType::kF64) {
    reduce_typed(static_cast<double*>(into), static_cast<const double*>(from), count, op);
  } else {
    reduce_typed(static_cast<int64_t*>(into), static_cast<const int64_t*>(from), count, op);
  }
}

}  // namespace weft::comm
