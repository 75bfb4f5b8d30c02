// Vectors at the end of an array, and where an array is not aligned.
#pragma once

#include <type_traits>

#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {

// Calls act with whether it is aligned as a constant, so that no branch stands between one access
// and the next.
template <typename Act>
__device__ void with_alignment(bool aligned, const Act& act) {
  if (aligned) return act(std::true_type());
  act(std::false_type());
}

// `count` elements and zeros; where the array is aligned, and so all of the vector is there, in one
// access.
template <int kWide, typename T>
__device__ Vector<T, kWide> load_some(const T* from, int count, bool aligned) {
  if (aligned) return load_vector<kWide>(from);
  Vector<T, kWide> vector;
  WEFT_UNROLL
  for (int j = 0; j < kWide; ++j) vector.at[j] = j < count ? from[j] : narrow<T>(0.0F);
  return vector;
}
// The same as it comes.
template <int kWide, typename T>
__device__ Packed<T, kWide> load_some_packed(const T* from, int count, bool aligned) {
  if (aligned) return load_packed<kWide>(from);
  return packed(load_some<kWide>(from, count, false));
}
// `count` floats and zeros, for a vector of another type: as many accesses as that takes.
template <int kWide>
__device__ Vector<float, kWide> load_some_floats(const float* from, int count, bool aligned) {
  constexpr int kOfAccess = kVectorWidth<float>;
  static_assert(kWide % kOfAccess == 0);
  Vector<float, kWide> vector;
  WEFT_UNROLL
  for (int first = 0; first < kWide; first += kOfAccess) {
    const auto part = load_some<kOfAccess>(from + first, count - first, aligned);
    WEFT_UNROLL
    for (int j = 0; j < kOfAccess; ++j) vector.at[first + j] = part.at[j];
  }
  return vector;
}
template <int kWide, typename T>
__device__ void store_some(T* to, const Vector<T, kWide>& vector, int count, bool aligned) {
  if (aligned) return store_vector(to, vector);
  WEFT_UNROLL
  for (int j = 0; j < kWide; ++j) {
    if (j < count) to[j] = vector.at[j];
  }
}

// Calls use(load(i)) for i = first, first + apart, ... below end, in this order, with kAtOnce loads
// under way together: what `load` gives is as it came (Packed, numbers).
template <int kAtOnce, typename Load, typename Use>
__device__ void in_batches(int64_t first, int64_t end, int64_t apart, const Load& load,
                           const Use& use) {
  for (int64_t i = first; i < end; i += kAtOnce * apart) {
    decltype(load(i)) loaded[kAtOnce];
    WEFT_UNROLL
    for (int u = 0; u < kAtOnce; ++u) {
      if (i + u * apart < end) loaded[u] = load(i + u * apart);
    }
    WEFT_UNROLL
    for (int u = 0; u < kAtOnce; ++u) {
      if (i + u * apart < end) use(loaded[u]);
    }
  }
}

}  // namespace weft::cuda
