// Instructions that C++ has no words for, one function each: half-width conversions, dynamic shared
// memory, asynchronous copies, matrix loads and products of sm_80. Those of sm_90a stand in
// ptx_sm90.cuh. Kernels use them only through these functions: the tests' harness has files of the
// same names that give each its meaning on a CPU, and self_test.cu compares the two on a GPU.
//
// Lanes: g = lane / 4, t = lane % 4. Words of a fragment hold two half-width elements, the one of
// the lower column (or row) in the low bits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/vector.h"
#include "kernels/tensor/half.h"

// Before a loop whose index picks registers.
#define WEFT_UNROLL _Pragma("unroll")
#define WEFT_ROLLED _Pragma("unroll 1")
#define WEFT_UNROLL_FOUR _Pragma("unroll 4")

namespace weft::cuda {

// ---- values
__device__ inline float widen(float value) { return value; }
__device__ inline float widen(bfloat16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}
__device__ inline float widen(float16 value) { return __half2float(__ushort_as_half(value.bits)); }
// To nearest, ties to even.
template <typename T>
__device__ T narrow(float value);
template <>
__device__ inline float narrow<float>(float value) {
  return value;
}
template <>
__device__ inline bfloat16 narrow<bfloat16>(float value) {
  bfloat16 result;
  result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
  return result;
}
template <>
__device__ inline float16 narrow<float16>(float value) {
  float16 result;
  result.bits = __half_as_ushort(__float2half_rn(value));
  return result;
}
// Two in a word.
template <typename T>
__device__ uint32_t narrow_pair(float low, float high);
template <>
__device__ inline uint32_t narrow_pair<bfloat16>(float low, float high) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
template <>
__device__ inline uint32_t narrow_pair<float16>(float low, float high) {
  uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
// The compiler takes the index as any: it keeps no pointers that run along with it.
__device__ inline void forget_origin(int& index) { asm volatile("" : "+r"(index)); }
// 2^x within 2 units of the last place; nothing where that is below the least normal number.
__device__ inline float exp2_fast(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
// Of 10 bits of fraction, to nearest, ties away from zero; as the bits of a float.
__device__ inline uint32_t narrow_tf32(float value) {
  uint32_t word;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(value));
  return word;
}
__device__ inline float float_of_bits(uint32_t bits) { return __uint_as_float(bits); }
__device__ inline uint32_t bits_of_float(float value) { return __float_as_uint(value); }

// The exponential and the quotient by the hardware's approximations: within 2^-20 of them for
// magnitudes up to 2^6, beside which a rounding to a half type is coarse. An exponential below the
// least normal number and the quotient of a denominator above 2^126 may be 0.
__device__ inline float fast_exponential(float x) { return exp2_fast(x * 1.4426950408889634F); }
__device__ inline float fast_quotient(float a, float b) { return __fdividef(a, b); }

// ---- several elements in one access, of at most 16 bytes; the address is a multiple of them.
template <int kBytes>
struct Words;
template <>
struct Words<1> {
  using Type = uint8_t;
};
template <>
struct Words<2> {
  using Type = uint16_t;
};
template <>
struct Words<4> {
  using Type = uint32_t;
};
template <>
struct Words<8> {
  using Type = uint2;
};
template <>
struct Words<16> {
  using Type = uint4;
};
// As they come from memory, in whole registers: taking the elements apart waits for them. What is
// to be under way together is loaded first and unpacked behind the last load.
template <typename T, int kCount>
struct Packed {
  typename Words<sizeof(T) * kCount>::Type words;
};
template <int kCount, typename T>
__device__ Packed<T, kCount> load_packed(const T* from) {
  using Type = typename Words<sizeof(T) * kCount>::Type;
  return {*reinterpret_cast<const Type*>(from)};
}
template <typename T, int kCount>
__device__ Vector<T, kCount> unpack(const Packed<T, kCount>& packed) {
  Vector<T, kCount> vector;
  memcpy(&vector, &packed, sizeof vector);
  return vector;
}
// As floats, one instruction an element.
template <typename T, int kCount>
__device__ Vector<float, kCount> widened(const Packed<T, kCount>& packed) {
  Vector<float, kCount> wide;
  if constexpr (std::is_same_v<T, bfloat16> && kCount % 2 == 0) {
    uint32_t words[kCount / 2];
    memcpy(words, &packed, sizeof packed);
    WEFT_UNROLL
    for (int i = 0; i < kCount / 2; ++i) {
      wide.at[2 * i] = __uint_as_float(words[i] << 16);
      wide.at[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000U);
    }
  } else {
    const Vector<T, kCount> vector = unpack(packed);
    WEFT_UNROLL
    for (int j = 0; j < kCount; ++j) wide.at[j] = widen(vector.at[j]);
  }
  return wide;
}
template <typename T, int kCount>
__device__ Packed<T, kCount> packed(const Vector<T, kCount>& vector) {
  Packed<T, kCount> packed;
  memcpy(&packed, &vector, sizeof packed);
  return packed;
}
template <int kCount, typename T>
__device__ Vector<T, kCount> load_vector(const T* from) {
  return unpack<T, kCount>(load_packed<kCount>(from));
}
// In one piece: no optimization takes these apart.
template <typename Type>
__device__ void store_words(Type* to, const Type& words) {
  *to = words;
}
template <>
__device__ inline void store_words<uint2>(uint2* to, const uint2& words) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(words.x), "r"(words.y) : "memory");
}
template <>
__device__ inline void store_words<uint4>(uint4* to, const uint4& words) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words.x), "r"(words.y),
               "r"(words.z), "r"(words.w)
               : "memory");
}
template <typename T, int kCount>
__device__ void store_vector(T* to, const Vector<T, kCount>& vector) {
  using Type = typename Words<sizeof(T) * kCount>::Type;
  Type words;
  memcpy(&words, &vector, sizeof words);
  store_words(reinterpret_cast<Type*>(to), words);
}

// ---- shared memory
extern __shared__ __align__(1024) unsigned char weft_dynamic_shared[];
// The block's dynamic shared memory, launch()'s shared_bytes of it, aligned to 1024 bytes.
template <typename T>
__device__ T* shared_memory() {
  return reinterpret_cast<T*>(weft_dynamic_shared);
}
__device__ inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// ---- asynchronous copies (cp.async): 16 bytes, those past the first `bytes` (0 to 16) zero; both
// addresses are multiples of 16. They are there for the thread itself after copies_wait, for others
// after a barrier behind it.
__device__ inline void copy_16(void* to_shared, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to_shared)),
               "l"(from), "r"(bytes)
               : "memory");
}
__device__ inline void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until no more than kLeft of the thread's committed groups are under way.
template <int kLeft>
__device__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// ---- matrices of 8 x 8 half-width elements, four at a time (ldmatrix). Lane l hands in the
// address of row l % 8 of matrix l / 8 (16 bytes, a multiple of 16); r[i] of lane (g, t) is row g,
// columns 2t and 2t + 1 of matrix i. Transposed: rows 2t and 2t + 1 of column g.
__device__ inline void load_matrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// ---- products of tensor cores, accumulated in fp32 (mma.sync): d += a b, a [16, K], b [K, 8].
//   d[0..3]  rows g, g, g + 8, g + 8; columns 2t, 2t + 1, 2t, 2t + 1
// m16n8k16, half-width:
//   a[0..3]  rows g, g + 8, g, g + 8; columns 2t, 2t, 2t + 8, 2t + 8 (and the next one)
//   b[0..1]  rows 2t, 2t + 8 (and the next one); column g
template <typename T>
__device__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
__device__ inline void multiply_add<bfloat16>(float (&d)[4], const uint32_t (&a)[4],
                                              const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ inline void multiply_add<float16>(float (&d)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// m16n8k8, of floats of which only the first 10 bits of fraction count:
//   a[0..3]  rows g, g + 8, g, g + 8; columns t, t, t + 4, t + 4
//   b[0..1]  rows t, t + 4; column g
__device__ inline void multiply_add_tf32(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace weft::cuda
