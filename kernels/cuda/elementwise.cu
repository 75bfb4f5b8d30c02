// Elementwise arithmetic with broadcasting, strided copies, sums and casts. Numerical policy:
// halves are widened to fp32, one operation, one rounding; copies within one type move the bits.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

__device__ float apply(Binary kind, float a, float b) {
  switch (kind) {
    case Binary::kAdd:
      return a + b;
    case Binary::kSubtract:
      return a - b;
    case Binary::kMultiply:
      return a * b;
    case Binary::kDivide:
      break;
  }
  return a / b;
}

template <typename T>
__global__ void binary_kernel(Binary kind, const T* a, const T* b, T* out, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    out[i] = narrow<T>(apply(kind, widen(a[i]), widen(b[i])));
  }
}

template <typename T>
__global__ void walking_binary_kernel(Binary kind, const __grid_constant__ Walk<3> walk, const T* a,
                                      const T* b, T* out) {
  for (int64_t i = first_element(); i < walk.elements; i += elements_of_grid()) {
    const Offsets<3> offsets = offsets_of(walk, i);
    out[offsets.at[2]] = narrow<T>(apply(kind, widen(a[offsets.at[0]]), widen(b[offsets.at[1]])));
  }
}

template <typename T>
__global__ void scale_kernel(const T* x, float factor, T* y, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    y[i] = narrow<T>(factor * widen(x[i]));
  }
}

template <typename T>
__global__ void fill_kernel(T value, T* y, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) y[i] = value;
}

template <typename T>
constexpr bool kHalf = std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

template <typename To, typename From>
__device__ To converted(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (kHalf<From>) {
    return converted<To>(widen(value));
  } else if constexpr (kHalf<To>) {
    return narrow<To>(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

template <typename From, typename To>
__global__ void copy_kernel(const __grid_constant__ Walk<2> walk, const From* from, To* to) {
  for (int64_t i = first_element(); i < walk.elements; i += elements_of_grid()) {
    const Offsets<2> offsets = offsets_of(walk, i);
    to[offsets.at[1]] = converted<To>(from[offsets.at[0]]);
  }
}

template <typename From, typename To>
__global__ void add_kernel(const __grid_constant__ Walk<2> walk, const From* from, To* to) {
  using Wide = std::conditional_t<kHalf<To>, float, To>;
  for (int64_t i = first_element(); i < walk.elements; i += elements_of_grid()) {
    const Offsets<2> place = offsets_of(walk, i);
    To& sum = to[place.at[1]];
    sum = converted<To>(converted<Wide>(sum) + converted<Wide>(from[place.at[0]]));
  }
}

}  // namespace

template <typename T>
void binary(Binary kind, const Walk<3>& walk, const T* a, const T* b, T* out, cudaStream_t stream) {
  const unsigned blocks = blocks_of(walk.elements);
  if (walk.contiguous()) {
    launch(stream, blocks, kThreads, binary_kernel<T>, kind, a, b, out, walk.elements);
  } else {
    launch(stream, blocks, kThreads, walking_binary_kernel<T>, kind, walk, a, b, out);
  }
}
template <typename T>
void scale(const T* x, double factor, T* y, int64_t n, cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, scale_kernel<T>, x, static_cast<float>(factor), y, n);
}
template <typename T>
void fill(T value, T* y, int64_t n, cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, fill_kernel<T>, value, y, n);
}
template <typename From, typename To>
void copy(const Walk<2>& walk, const From* from, To* to, cudaStream_t stream) {
  launch(stream, blocks_of(walk.elements), kThreads, copy_kernel<From, To>, walk, from, to);
}
template <typename From, typename To>
void add(const Walk<2>& walk, const From* from, To* to, cudaStream_t stream) {
  launch(stream, blocks_of(walk.elements), kThreads, add_kernel<From, To>, walk, from, to);
}

#define WEFT_INSTANTIATE(T)                                                              \
  template void binary<T>(Binary, const Walk<3>&, const T*, const T*, T*, cudaStream_t); \
  template void scale<T>(const T*, double, T*, int64_t, cudaStream_t);                   \
  template void add<T, T>(const Walk<2>&, const T*, T*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE
template void add<double, double>(const Walk<2>&, const double*, double*, cudaStream_t);
#define WEFT_INSTANTIATE(T)                                                    \
  template void add<T, float>(const Walk<2>&, const T*, float*, cudaStream_t); \
  template void add<float, T>(const Walk<2>&, const float*, T*, cudaStream_t);
WEFT_INSTANTIATE(bfloat16)
WEFT_INSTANTIATE(float16)
#undef WEFT_INSTANTIATE
#define WEFT_INSTANTIATE(T)                                                           \
  template void fill<T>(T, T*, int64_t, cudaStream_t);                                \
  template void copy<T, float>(const Walk<2>&, const T*, float*, cudaStream_t);       \
  template void copy<T, bfloat16>(const Walk<2>&, const T*, bfloat16*, cudaStream_t); \
  template void copy<T, float16>(const Walk<2>&, const T*, float16*, cudaStream_t);   \
  template void copy<T, double>(const Walk<2>&, const T*, double*, cudaStream_t);     \
  template void copy<T, int64_t>(const Walk<2>&, const T*, int64_t*, cudaStream_t);   \
  template void copy<T, int32_t>(const Walk<2>&, const T*, int32_t*, cudaStream_t);   \
  template void copy<T, uint8_t>(const Walk<2>&, const T*, uint8_t*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
WEFT_INSTANTIATE(double)
WEFT_INSTANTIATE(int64_t)
WEFT_INSTANTIATE(int32_t)
WEFT_INSTANTIATE(uint8_t)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
