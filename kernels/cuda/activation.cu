// Activations with an optional bias, SwiGLU (Shazeer 2020), and their gradients. Numerical policy:
// elements are widened to fp32, computed in fp32 and rounded once.
#include "kernels/cuda/curves.cuh"
#include "kernels/cuda/map.cuh"

namespace weft::cuda {
namespace {

// y = f(x), f(x + bias).
template <typename T>
struct CurveOf {
  Curve kind;
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& y, const Vector<T, kWidth>& x) const {
    with_curve<T>(kind, [&](const auto& curve) {
      (each)([&](T a) { return narrow<T>(curve.value(widen(a))); }, y, x);
    });
  }
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& y, const Vector<T, kWidth>& x,
                             const Vector<T, kWidth>& bias) const {
    with_curve<T>(kind, [&](const auto& curve) {
      (each)([&](T a, T b) { return narrow<T>(curve.value(widen(a) + widen(b))); }, y, x, bias);
    });
  }
};

// dx = dy f'(x), dy f'(x + bias).
template <typename T>
struct SlopeOf {
  Curve kind;
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& dx, const Vector<T, kWidth>& x,
                             const Vector<T, kWidth>& dy) const {
    with_curve<T>(kind, [&](const auto& curve) {
      (each)([&](T a, T d) { return narrow<T>(widen(d) * curve.slope(widen(a))); }, dx, x, dy);
    });
  }
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& dx, const Vector<T, kWidth>& x,
                             const Vector<T, kWidth>& bias, const Vector<T, kWidth>& dy) const {
    with_curve<T>(kind, [&](const auto& curve) {
      const auto one = [&](T a, T b, T d) {
        return narrow<T>(widen(d) * curve.slope(widen(a) + widen(b)));
      };
      (each)(one, dx, x, bias, dy);
    });
  }
};

template <typename T>
struct Gated {
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& y, const Vector<T, kWidth>& gate,
                             const Vector<T, kWidth>& up) const {
    const CurveFormula<T, Curve::kSilu> silu;
    (each)([&](T g, T u) { return narrow<T>(silu.value(widen(g)) * widen(u)); }, y, gate, up);
  }
};

// Two outputs: dgate, and dup where dgate lies.
template <typename T>
struct GatedBack {
  T* dup;
  bool aligned;
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& dgate, const Vector<T, kWidth>& gate,
                             const Vector<T, kWidth>& up, const Vector<T, kWidth>& dy,
                             const Vector<Place, kWidth>& place) const {
    const CurveFormula<T, Curve::kSilu> silu;
    Vector<T, kWidth> of_up;
    WEFT_UNROLL
    for (int j = 0; j < kWidth; ++j) {
      const float g = widen(gate.at[j]), u = widen(up.at[j]), d = widen(dy.at[j]);
      dgate.at[j] = narrow<T>(d * u * silu.slope(g));
      of_up.at[j] = narrow<T>(d * silu.value(g));
    }
    T* to = dup + place.at[0].index;
    if (aligned) return store_vector(to, of_up);
    WEFT_UNROLL
    for (int j = 0; j < kWidth; ++j) to[j] = of_up.at[j];
  }
};

// Rows of x, a bias that each of them takes, and `more` arrays that lie as x.
template <int kArrays>
Walk<kArrays> biased_rows(int64_t rows, int64_t width) {
  const int64_t extents[2] = {rows, width}, whole[2] = {width, 1}, same[2] = {0, 1};
  Walk<kArrays> walk;
  if constexpr (kArrays == 3) (void)make_walk<3>(extents, {whole, same, whole}, walk);
  if constexpr (kArrays == 4) (void)make_walk<4>(extents, {whole, same, whole, whole}, walk);
  return walk;
}

}  // namespace

template <typename T>
void curve(Curve kind, const T* x, Optional<T> bias, T* y, int64_t rows, int64_t width,
           cudaStream_t stream) {
  if (bias == nullptr) return (map_flat)(stream, CurveOf<T>{kind}, rows * width, y, x);
  (map)(stream, CurveOf<T>{kind}, biased_rows<3>(rows, width), y, x, bias);
}
template <typename T>
void curve_backward(Curve kind, const T* x, Optional<T> bias, const T* dy, T* dx, int64_t rows,
                    int64_t width, cudaStream_t stream) {
  if (bias == nullptr) return (map_flat)(stream, SlopeOf<T>{kind}, rows * width, dx, x, dy);
  (map)(stream, SlopeOf<T>{kind}, biased_rows<4>(rows, width), dx, x, bias, dy);
}
template <typename T>
void swiglu(const T* gate, const T* up, T* y, int64_t n, cudaStream_t stream) {
  (map_flat)(stream, Gated<T>(), n, y, gate, up);
}
template <typename T>
void swiglu_backward(const T* gate, const T* up, const T* dy, T* dgate, T* dup, int64_t n,
                     cudaStream_t stream) {
  const GatedBack<T> back{dup, takes_vectors(dup)};
  (map_flat)(stream, back, n, dgate, gate, up, dy, static_cast<const Place*>(nullptr));
}

#define WEFT_INSTANTIATE(T)                                                                     \
  template void curve<T>(Curve, const T*, Optional<T>, T*, int64_t, int64_t, cudaStream_t);     \
  template void curve_backward<T>(Curve, const T*, Optional<T>, const T*, T*, int64_t, int64_t, \
                                  cudaStream_t);                                                \
  template void swiglu<T>(const T*, const T*, T*, int64_t, cudaStream_t);                       \
  template void swiglu_backward<T>(const T*, const T*, const T*, T*, T*, int64_t, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
