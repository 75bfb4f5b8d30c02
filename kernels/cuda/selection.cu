// Comparisons, the smaller or larger of two, and choices by a mask, with broadcasting. Numerical
// policy: exact; of a NaN and anything the extreme is NaN.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/map.cuh"

namespace weft::cuda {
namespace {

// What elements are compared as.
__device__ inline int64_t comparable(int64_t value) { return value; }
__device__ inline int32_t comparable(int32_t value) { return value; }
__device__ inline int32_t comparable(uint8_t value) { return value; }
template <typename T>
__device__ float comparable(T value) {
  return widen(value);
}

template <typename V>
__device__ bool holds(cpu::Compare kind, V a, V b) {
  switch (kind) {
    case cpu::Compare::kEqual:
      return a == b;
    case cpu::Compare::kNotEqual:
      return a != b;
    case cpu::Compare::kLess:
      return a < b;
    case cpu::Compare::kLessEqual:
      return a <= b;
    case cpu::Compare::kGreater:
      return a > b;
    case cpu::Compare::kGreaterEqual:
      break;
  }
  return a >= b;
}

template <typename T>
struct Comparison {
  cpu::Compare kind;
  template <int kWidth>
  __device__ void operator()(Vector<uint8_t, kWidth>& out, const Vector<T, kWidth>& a,
                             const Vector<T, kWidth>& b) const {
    const auto one = [&](T x, T y) -> uint8_t {
      return holds(kind, comparable(x), comparable(y)) ? 1 : 0;
    };
    (each)(one, out, a, b);
  }
};

template <typename T>
struct Extreme {
  bool larger;
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& out, const Vector<T, kWidth>& a,
                             const Vector<T, kWidth>& b) const {
    const auto one = [&](T left, T right) {
      const float x = widen(left), y = widen(right);
      return x != x || (y == y && (larger ? x > y : x < y)) ? left : right;
    };
    (each)(one, out, a, b);
  }
};

template <typename T>
struct Choice {
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& out, const Vector<uint8_t, kWidth>& mask,
                             const Vector<T, kWidth>& a, const Vector<T, kWidth>& b) const {
    (each)([](uint8_t first, T x, T y) { return first != 0 ? x : y; }, out, mask, a, b);
  }
};

}  // namespace

template <typename T>
void compare(cpu::Compare kind, const Walk<3>& walk, const T* a, const T* b, uint8_t* out,
             cudaStream_t stream) {
  (map)(stream, Comparison<T>{kind}, walk, out, a, b);
}
template <typename T>
void extreme(bool larger, const Walk<3>& walk, const T* a, const T* b, T* out,
             cudaStream_t stream) {
  (map)(stream, Extreme<T>{larger}, walk, out, a, b);
}
template <typename T>
void choose(const Walk<4>& walk, const uint8_t* mask, const T* a, const T* b, T* out,
            cudaStream_t stream) {
  (map)(stream, Choice<T>(), walk, out, mask, a, b);
}

#define WEFT_INSTANTIATE(T)                                                             \
  template void extreme<T>(bool, const Walk<3>&, const T*, const T*, T*, cudaStream_t); \
  template void choose<T>(const Walk<4>&, const uint8_t*, const T*, const T*, T*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE
#define WEFT_INSTANTIATE(T)                                                            \
  template void compare<T>(cpu::Compare, const Walk<3>&, const T*, const T*, uint8_t*, \
                           cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
WEFT_INSTANTIATE(int64_t)
WEFT_INSTANTIATE(int32_t)
WEFT_INSTANTIATE(uint8_t)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
