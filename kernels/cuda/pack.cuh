// Neighbours in memory that a thread reads or writes in one access.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace weft::cuda {

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T at[kCount];
};

template <typename T>
constexpr int kPackMax = 16 / sizeof(T);

template <int kCount, typename T>
__device__ Pack<T, kCount>& pack_at(T* x) {
  return *reinterpret_cast<Pack<T, kCount>*>(x);
}
template <int kCount, typename T>
__device__ const Pack<T, kCount>& pack_at(const T* x) {
  return *reinterpret_cast<const Pack<T, kCount>*>(x);
}

// Whether rows `step` apart are made of whole packs of kPackMax.
template <typename T>
bool in_packs(const T* x, int64_t step) {
  return step % kPackMax<T> == 0 &&
         reinterpret_cast<uintptr_t>(x) % sizeof(Pack<T, kPackMax<T>>) == 0;
}

}  // namespace weft::cuda
