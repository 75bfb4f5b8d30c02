// Element types of tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/tensor/half.h"
#include "proto/base/check.h"

namespace weft {

enum class DType : uint8_t { kF32, kF64, kI64, kI32, kU8, kBF16, kF16 };

constexpr size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 4;
    case DType::kF64:
      return 8;
    case DType::kI64:
      return 8;
    case DType::kI32:
      return 4;
    case DType::kU8:
      return 1;
    case DType::kBF16:
    case DType::kF16:
      return 2;
  }
  return 0;
}

constexpr bool is_half(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF16; }
constexpr bool is_floating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF64 || is_half(dtype);
}

// Of a leaf: fp32 where the leaf is of a half type, so that accumulation loses nothing.
constexpr DType gradient_dtype(DType leaf) { return is_half(leaf) ? DType::kF32 : leaf; }

// The spelling of safetensors: "F32", "F64", "I64", "I32", "U8", "BF16", "F16".
constexpr std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF64:
      return "F64";
    case DType::kI64:
      return "I64";
    case DType::kI32:
      return "I32";
    case DType::kU8:
      return "U8";
    case DType::kBF16:
      return "BF16";
    case DType::kF16:
      return "F16";
  }
  return "?";
}

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kU8;
};
template <>
struct DTypeOf<bfloat16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<float16> {
  static constexpr DType value = DType::kF16;
};

}  // namespace weft
