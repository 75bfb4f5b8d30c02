#include "cluster/comm/reduce_elements.h"

#include <cstring>

namespace weft::comm {
namespace {

template <typename T>
void reduce_typed(T* into, const T* from, int64_t count, ReduceOp op) {
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
    : into_(into), dtype_(dtype), sum_(static_cast<size_t>(count), 0.0F) {
  add(into, 0, count);
}

void HalfSum::add(const void* from, int64_t first, int64_t count) {
  dispatch_half(dtype_, [&]<typename T>() {
    const T* terms = static_cast<const T*>(from);
    float* at = sum_.data() + first;
    for (int64_t i = 0; i < count; ++i) at[i] += terms[i];
  });
}

void HalfSum::finish() {
  dispatch_half(dtype_, [&]<typename T>() {
    T* to = static_cast<T*>(into_);
    for (const float value : sum_) *to++ = static_cast<T>(value);
  });
}

}  // namespace weft::comm
