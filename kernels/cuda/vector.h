// Several elements that a thread reads or writes in one access (load_vector, store_vector of
// ptx.cuh).
//
// Thread safety: values.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace weft::cuda {

constexpr size_t kAccessBytes = 16;  // of the widest access; more are several

// kCount is a power of two.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < kAccessBytes ? sizeof(T) * kCount : kAccessBytes) Vector {
  T at[kCount];
};

template <typename T>
constexpr int kVectorWidth = kAccessBytes / sizeof(T);

// Whether vectors of T may start at the address: null counts as an array that is not there.
template <typename T>
__host__ __device__ bool takes_vectors(const T* array) {
  return reinterpret_cast<uintptr_t>(array) % kAccessBytes == 0;
}

}  // namespace weft::cuda
