// What the instructions of kernels/cuda/ptx.cuh mean, on a CPU; it stands in for that file.
// Products are exact and summed in double before one rounding; the hardware's own order of sums is
// not told.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cuda/vector.h"
#include "kernels/tensor/half.h"
#include "tests/testing/cuda_on_cpu/matrices.h"
#include "tests/testing/cuda_on_cpu/traffic.h"

#define WEFT_UNROLL
#define WEFT_ROLLED
#define WEFT_UNROLL_FOUR

namespace weft::cuda {

using cuda_on_cpu::Where;

inline float widen(float value) { return value; }
inline float widen(bfloat16 value) { return static_cast<float>(value); }
inline float widen(float16 value) { return static_cast<float>(value); }
template <typename T>
T narrow(float value) {
  return T(value);
}
template <typename T>
uint32_t narrow_pair(float low, float high) {
  return uint32_t{T(low).bits} | uint32_t{T(high).bits} << 16;
}
inline void forget_origin(int&) {}
inline float exp2_fast(float x) {
  const float power = std::exp2(x);
  return power < std::numeric_limits<float>::min() ? 0.0F : power;
}
inline uint32_t narrow_tf32(float value) { return cuda_on_cpu::round_to_tf32(value); }
inline float float_of_bits(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t bits_of_float(float value) { return std::bit_cast<uint32_t>(value); }

inline float fast_exponential(float x) { return std::exp(x); }
inline float fast_quotient(float a, float b) { return a / b; }

template <typename T, int kCount>
struct Packed {
  Vector<T, kCount> vector;
};
template <int kCount, typename T>
Packed<T, kCount> load_packed(const T* from, const Where& where = Where::current()) {
  cuda_on_cpu::check_aligned(from, alignof(Vector<T, kCount>), where);
  Packed<T, kCount> packed;
  std::memcpy(packed.vector.at, from, sizeof packed.vector.at);
  return packed;
}
template <typename T, int kCount>
Packed<T, kCount> packed(const Vector<T, kCount>& vector) {
  return {vector};
}
template <typename T, int kCount>
Vector<T, kCount> unpack(const Packed<T, kCount>& packed) {
  return packed.vector;
}
template <typename T, int kCount>
Vector<float, kCount> widened(const Packed<T, kCount>& packed) {
  Vector<float, kCount> wide;
  for (int j = 0; j < kCount; ++j) wide.at[j] = widen(packed.vector.at[j]);
  return wide;
}
template <int kCount, typename T>
Vector<T, kCount> load_vector(const T* from, const Where& where = Where::current()) {
  return load_packed<kCount>(from, where).vector;
}
template <typename T, int kCount>
void store_vector(T* to, const Vector<T, kCount>& vector, const Where& where = Where::current()) {
  cuda_on_cpu::check_aligned(to, alignof(Vector<T, kCount>), where);
  std::memcpy(to, vector.at, sizeof vector.at);
}

template <typename T>
T* shared_memory() {
  return static_cast<T*>(cuda_on_cpu::dynamic_shared());
}

inline void copy_16(void* to_shared, const void* from, int bytes,
                    const Where& where = Where::current()) {
  cuda_on_cpu::copy_async(to_shared, from, bytes, 16, where);
}
inline void copies_commit() { cuda_on_cpu::copy_async_commit(); }
template <int kLeft>
void copies_wait() {
  cuda_on_cpu::copy_async_wait(kLeft);
}

inline void load_matrices(uint32_t (&r)[4], const void* row,
                          const Where& where = Where::current()) {
  cuda_on_cpu::warp_load(r, row, false, where);
}
inline void load_matrices_transposed(uint32_t (&r)[4], const void* row,
                                     const Where& where = Where::current()) {
  cuda_on_cpu::warp_load(r, row, true, where);
}

template <typename T>
void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                  const Where& where = Where::current()) {
  constexpr auto kKind = std::is_same_v<T, bfloat16> ? cuda_on_cpu::Element::kBfloat16
                                                     : cuda_on_cpu::Element::kFloat16;
  cuda_on_cpu::warp_multiply(kKind, d, a, b, where);
}
inline void multiply_add_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              const Where& where = Where::current()) {
  cuda_on_cpu::warp_multiply(cuda_on_cpu::Element::kTf32, d, a, b, where);
}

}  // namespace weft::cuda
