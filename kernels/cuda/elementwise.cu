// Elementwise arithmetic with broadcasting, strided copies, sums and casts. Numerical policy:
// halves are widened to fp32, one operation, one rounding; copies within one type move the bits.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/map.cuh"

namespace weft::cuda {
namespace {

template <typename T>
struct Arithmetic {
  Binary kind;
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& y, const Vector<T, kWidth>& a,
                             const Vector<T, kWidth>& b) const {
    const auto by = [&](const auto& operation) {
      (each)([&](T x, T z) { return narrow<T>(operation(widen(x), widen(z))); }, y, a, b);
    };
    switch (kind) {
      case Binary::kAdd:
        return by([](float x, float z) { return x + z; });
      case Binary::kSubtract:
        return by([](float x, float z) { return x - z; });
      case Binary::kMultiply:
        return by([](float x, float z) { return x * z; });
      case Binary::kDivide:
        break;
    }
    by([](float x, float z) { return x / z; });
  }
};

template <typename T>
struct Scaled {
  float factor;
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& y, const Vector<T, kWidth>& x) const {
    (each)([&](T value) { return narrow<T>(factor * widen(value)); }, y, x);
  }
};

template <typename T>
struct Constant {
  T value;
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& y) const {
    (each)([&] { return value; }, y);
  }
};

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

template <typename To>
struct Cast {
  template <typename From, int kWidth>
  __device__ void operator()(Vector<To, kWidth>& y, const Vector<From, kWidth>& x) const {
    (each)([](From value) { return converted<To>(value); }, y, x);
  }
};

template <typename To>
struct Sum {
  template <typename From, int kWidth>
  __device__ void operator()(Vector<To, kWidth>& y, const Vector<To, kWidth>& before,
                             const Vector<From, kWidth>& x) const {
    using Wide = std::conditional_t<kHalf<To>, float, To>;
    const auto sum = [](To a, From b) {
      return converted<To>(converted<Wide>(a) + converted<Wide>(b));
    };
    (each)(sum, y, before, x);
  }
};

}  // namespace

template <typename T>
void binary(Binary kind, const Walk<3>& walk, const T* a, const T* b, T* out, cudaStream_t stream) {
  (map)(stream, Arithmetic<T>{kind}, walk, out, a, b);
}
template <typename T>
void scale(const T* x, double factor, T* y, int64_t n, cudaStream_t stream) {
  (map_flat)(stream, Scaled<T>{static_cast<float>(factor)}, n, y, x);
}
template <typename T>
void fill(T value, T* y, int64_t n, cudaStream_t stream) {
  (map_flat)(stream, Constant<T>{value}, n, y);
}
template <typename From, typename To>
void copy(const Walk<2>& walk, const From* from, To* to, cudaStream_t stream) {
  (map)(stream, Cast<To>(), walk, to, from);
}
template <typename From, typename To>
void add(const Walk<2>& walk, const From* from, To* to, cudaStream_t stream) {
  Walk<3> both;  // `to` is read and written
  both.dims = walk.dims;
  both.elements = walk.elements;
  for (int dim = 0; dim < walk.dims; ++dim) {
    both.extent[dim] = walk.extent[dim];
    both.stride[0][dim] = both.stride[2][dim] = walk.stride[1][dim];
    both.stride[1][dim] = walk.stride[0][dim];
  }
  (map)(stream, Sum<To>(), both, to, static_cast<const To*>(to), from);
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
