// Conversions between float and the half types: rows, at each level of level.h, and whole tensors.
// Rounding is that of half.h; the bf16 level takes subnormal floats as zero, as its instruction
// does.
//
// Whole tensors may be on any device.
//
// Thread safety: pure functions; converted() from the rank's compute thread.
#pragma once

#include <cstdint>

#include "kernels/cpu/level.h"
#include "kernels/tensor/half.h"
#include "kernels/tensor/tensor.h"
#include "kernels/tensor/thread_pool.h"

namespace weft::cpu {

// n: elements of a row.
struct ConvertKernels {
  void (*widen_bf16)(const bfloat16* x, float* y, int64_t n);
  void (*round_bf16)(const float* x, bfloat16* y, int64_t n);
  void (*widen_f16)(const float16* x, float* y, int64_t n);
  void (*round_f16)(const float* x, float16* y, int64_t n);
  void (*add_bf16)(const bfloat16* x, bfloat16* y, int64_t n);   // y := round(y + x)
  void (*add_bf16_f32)(const bfloat16* x, float* y, int64_t n);  // y += x
};

const ConvertKernels& convert();
const ConvertKernels& convert_at(Level level);  // for tests

inline void widen(const bfloat16* x, float* y, int64_t n) { convert().widen_bf16(x, y, n); }
inline void widen(const float16* x, float* y, int64_t n) { convert().widen_f16(x, y, n); }
inline void round(const float* x, bfloat16* y, int64_t n) { convert().round_bf16(x, y, n); }
inline void round(const float* x, float16* y, int64_t n) { convert().round_f16(x, y, n); }

// x in another dtype, a fresh contiguous tensor; x itself where it has that dtype. Not recorded.
Tensor converted(ThreadPool& pool, const Tensor& x, DType dtype);
// to += from, whatever their dtypes, each sum computed in the wider of the two (half types: in
// float). Equal shapes, any strides.
void add_converted(ThreadPool& pool, const Tensor& from, const Tensor& to);

}  // namespace weft::cpu
