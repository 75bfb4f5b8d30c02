#include "cluster/comm/reduce_elements.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/vectors.h"

namespace weft::comm {
namespace {

constexpr int64_t kBlock = 1024;  // elements that stay in the nearest cache

cpu::Binary kind_of(ReduceOp op) {
  if (op == ReduceOp::kSum) return cpu::Binary::kAdd;
  return op == ReduceOp::kMax ? cpu::Binary::kMaximum : cpu::Binary::kMinimum;
}

// sum[i] += from[i]
template <typename T>
void add_half(float* sum, const T* from, int64_t count) {
  float terms[kBlock];
  for (int64_t at = 0; at < count; at += kBlock) {
    const int64_t n = std::min(kBlock, count - at);
    cpu::widen(from + at, terms, n);
    cpu::vectors<float>().binary(cpu::Binary::kAdd, sum + at, 1, terms, 1, sum + at, n);
  }
}

template <typename T>
void sum_halves(T* into, const T* from, int64_t count) {
  float sum[kBlock];
  for (int64_t at = 0; at < count; at += kBlock) {
    const int64_t n = std::min(kBlock, count - at);
    cpu::widen(into + at, sum, n);
    add_half(sum, from + at, n);
    cpu::round(sum, into + at, n);
  }
}

template <typename T>
void reduce_one_by_one(T* into, const T* from, int64_t count, ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      for (int64_t i = 0; i < count; ++i) into[i] = static_cast<T>(into[i] + from[i]);
      return;
    case ReduceOp::kMax:
      for (int64_t i = 0; i < count; ++i) {
        if (from[i] > into[i] || from[i] != from[i]) into[i] = from[i];
      }
      return;
    case ReduceOp::kMin:
      for (int64_t i = 0; i < count; ++i) {
        if (from[i] < into[i] || from[i] != from[i]) into[i] = from[i];
      }
      return;
  }
}

template <typename T>
void reduce_typed(T* into, const T* from, int64_t count, ReduceOp op) {
  if constexpr (std::is_floating_point_v<T>) {
    cpu::vectors<T>().binary(kind_of(op), into, 1, from, 1, into, count);
  } else {
    if constexpr (sizeof(T) == 2) {
      if (op == ReduceOp::kSum) return sum_halves(into, from, count);
    }
    reduce_one_by_one(into, from, count, op);
  }
}

// f.operator()<T>() for the dtypes that can be reduced.
template <typename F>
void dispatch_reducible(DType dtype, F&& f) {
  check_reducible(dtype);
  if (dtype == DType::kF32) return f.template operator()<float>();
  if (dtype == DType::kF64) return f.template operator()<double>();
  if (dtype == DType::kI64) return f.template operator()<int64_t>();
  if (dtype == DType::kBF16) return f.template operator()<bfloat16>();
  f.template operator()<float16>();
}

template <typename F>
void dispatch_half(DType dtype, F&& f) {
  WEFT_CHECK(is_half(dtype), "{} is no half type", dtype_name(dtype));
  if (dtype == DType::kBF16) return f.template operator()<bfloat16>();
  f.template operator()<float16>();
}

}  // namespace

void check_reducible(DType dtype) {
  WEFT_CHECK(is_floating(dtype) || dtype == DType::kI64, "no reduction of {}", dtype_name(dtype));
}

void reduce_elements(void* into, const void* from, int64_t count, DType dtype, ReduceOp op) {
  dispatch_reducible(dtype, [&]<typename T>() {
    reduce_typed(static_cast<T*>(into), static_cast<const T*>(from), count, op);
  });
}

void reduce_terms(void* out, std::span<const void* const> terms, int64_t count, DType dtype,
                  ReduceOp op) {
  if (count == 0) return;
  if (out != terms[0]) std::memcpy(out, terms[0], static_cast<size_t>(count) * size_of(dtype));
  if (is_half(dtype) && op == ReduceOp::kSum) {
    HalfSum sum(out, count, dtype);
    for (const void* term : terms.subspan(1)) sum.add(term, 0, count);
    return sum.finish();
  }
  for (const void* term : terms.subspan(1)) reduce_elements(out, term, count, dtype, op);
}

HalfSum::HalfSum(void* into, int64_t count, DType dtype)
    : into_(into), dtype_(dtype), sum_(static_cast<size_t>(count)) {
  dispatch_half(dtype_, [&]<typename T>() {
    cpu::widen(static_cast<const T*>(into_), sum_.data(), std::ssize(sum_));
  });
}

void HalfSum::add(const void* from, int64_t first, int64_t count) {
  dispatch_half(dtype_, [&]<typename T>() {
    add_half(sum_.data() + first, static_cast<const T*>(from), count);
  });
}

void HalfSum::finish() {
  dispatch_half(dtype_, [&]<typename T>() {
    cpu::round(sum_.data(), static_cast<T*>(into_), std::ssize(sum_));
  });
}

}  // namespace weft::comm
