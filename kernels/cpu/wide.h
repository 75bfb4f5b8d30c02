// What rows of T are computed in where bfloat16 is taken as it lies.
// Thread safety: a type.
#pragma once

#include <type_traits>

#include "kernels/tensor/half.h"

namespace weft::cpu {

template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, bfloat16>, float, T>;

}  // namespace weft::cpu
